"""What the documentation says exists, exists; every block and command of it runs as printed.

A page's blocks run in page order in one folder, which has the repository's files and, where the page uses one without
making it, a small trained bundle. C, C++ and CMake blocks name their file in the first line; a later command builds it.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from cmake_project import ROOT, run
from programs import python

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BUNDLE = "outputs/panda/bundle"
LONGEST_S = 900  # of a block; see SHORTER. On cores that compile for other tests beside it, one takes that of three
LANGUAGES = {"bash", "python", "cpp", "c", "cmake", "text"}
COMMANDS = (
    "python python3 pip bash sh cmake ctest pytest pre-commit sphinx-build torchrun tensorboard apt-get git cc c++ g++ "
    "source . npm node mfik".split()
)

# What takes long as printed, and what runs instead.
SHORTER = {
    "--minutes 10": "--minutes 0.03 --num 100",
    "--num_samples 1000000": "--num_samples 10000",
    "motion.py slack track long nearest": "motion.py slack track long nearest --n 2",
    "--num_epochs 8": "--num_epochs 1",
    "--resolution 0.05": "--resolution 0.2 --orientations 4",
    "--resolution 0.04": "--resolution 0.1 --orientations 4",
    "reach.py --robot panda": "reach.py --robot panda --resolution 0.3 --sample 20",
    "reach.py --robot ur10 --resolution 0.08": "reach.py --robot ur10 --resolution 0.4 --sample 20",
    "--protocol": "--protocol --num 50",
    "--report outputs/panda/page": "--report outputs/panda/page --num 50",
}
# How commands begin that do not run here, and why; their scripts and flags are checked.
NOT_RUN = {
    "python3 -m venv .venv": ".ci/run does, before these tests",
    ". .venv/bin/activate": "the same",
    "pip install": "the same",
    "pytest": "it would run itself",
    "pre-commit run": ".ci/run does, after these tests",
    "sphinx-build": "tests/test_site.py builds the site",
    "cmake -S . -B build/fuzz": "needs clang's libFuzzer",
    "cmake --build build/fuzz": "the same",
    "mkdir -p build/found": "the same",
    "TMPDIR=/dev/shm build/fuzz": "fuzzes for ten minutes",
    "bash scripts/gpu_checks.sh": "needs a GPU",
    "python scripts/view.py": "serves until it is stopped; tests/view/test_command.py",
    "mfik view": "the same",
    "mfik completion": "tests/cli/test_info.py::test_a_shell_completes_commands_options_and_files runs it",
    "mkdir -p ~/.local": "it is outside the test's folder",
    "OMP_NUM_THREADS=1 python benchmarks/solve.py": "needs the solvers of other people",
    "python benchmarks/collision.py": "needs the scenes of other people",
    "python benchmarks/paths.py": "needs the paths of other people",
    "CMAKE_TOOLCHAIN_FILE=$PWD/cmake/manylinux.cmake": "tests/packaging/test_wheel.py::wheel does",
    "auditwheel repair": "the same",
    "cd build/cpp": "tests/packaging/test_aarch64.py::test_debian_packages_serve_another_project does",
    "cpack -G DEB": "the same",
    "cmake -S . -B build/cpp": "tests/cpp/test_cpp.py::build does",
    "cmake --build build/cpp": "the same",
    "cmake --install build/cpp": "tests/cpp/test_cpp.py::moved_prefix does",
    "install/bin/mfik-bench": "tests/cpp/test_cpp.py::test_moved_installation_serves_another_project finds it there",
    "cmake -S examples/graphs": "tests/examples/test_graphs.py::built does",
    "cmake --build build/graphs": "the same",
    "build/graphs/solve": "tests/examples/test_graphs.py::test_it_solves runs it",
    "npm ci --prefix examples/graphs": "tests/examples/test_graphs.py::with_packages does",
    "node examples/graphs": "tests/examples/test_graphs.py::test_it_solves runs it",
    "cp -r panda examples/graphs/": "the same, beside the examples of a folder of its own",
    "python -m http.server": "the same; it serves until it is stopped",
    "npm ci --prefix web": "tests/web/test_page.py::dist does",
    "npm run build --prefix web": "the same",
    "find_package(mfik REQUIRED COMPONENTS": "tests/cpp/test_cpp.py::test_installed_engines_serve_another_project does",
}
NOT_RUN_PAGES = {"docs/how-to/clients.md": "tests/clients/test_clients.py builds and runs these programs"}


class Block(NamedTuple):
    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks, and the indented ones that are commands, in page order."""
    found, lines, number = [], page.read_text().split("\n"), 0
    while number < len(lines):
        start = number
        if lines[number].startswith("```"):
            language = lines[number][3:].strip()
            number += 1
            while not lines[number].startswith("```"):
                number += 1
            found.append(Block(language, "\n".join(lines[start + 1 : number]) + "\n", start + 2))
        elif lines[number].startswith("    ") and lines[number - 1] == "" and lines[number].split()[0] in COMMANDS:
            while lines[number].startswith("    "):
                number += 1
            found.append(Block("bash", "\n".join(line[4:] for line in lines[start:number]) + "\n", start + 1))
        number += 1
    return found


def commands(text: str) -> list[str]:
    """Split a shell block into its commands: at line ends that do not continue, and at &&."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"&&\s*\n\s*", "&& ", text))
    lines = (line.strip() for line in joined.splitlines())
    return [command.strip() for line in lines if line and line[0] != "#" for command in line.split(" && ")]


def why_not(page: Path, command: str) -> str | None:
    """Return why a command does not run here; None: it runs."""
    if name_of(page) in NOT_RUN_PAGES:
        return NOT_RUN_PAGES[name_of(page)]
    return next((reason for start, reason in NOT_RUN.items() if command.startswith(start)), None)


def shortened(text: str) -> str:
    for printed, instead in SHORTER.items():
        text = text.replace(printed, instead)
    return text


@cache
def help_of(script: str) -> str:
    """Return what tells a program's flags: --help, or the source of what may lack its packages here."""
    if script.startswith("mfik"):
        return subprocess.check_output([sys.executable, "-m", *script.split(), "--help"], text=True, cwd=ROOT)
    path = ROOT / script
    if path.parent.name != "scripts" or path.suffix != ".py":
        return path.read_text()
    return subprocess.check_output([sys.executable, path, "--help"], text=True, cwd=ROOT)


def check(page: Path, command: str) -> None:
    """Check that the files, flags, CMake options and extras that a command names exist."""
    scripts = re.findall(r"(?<![\w/.])(?:scripts|benchmarks|clients|examples|tests|csrc)/[\w./*-]+", command)
    for name in scripts:
        assert (ROOT / name).exists(), f"{name_of(page)}: `{command}` names {name}"
    programs = [name for name in scripts if name.endswith((".py", ".sh"))]
    programs += re.findall(r"^(?:python -m )?(mfik(?: [a-z]+)?)\b", command)
    if programs and "pytest" not in command:
        for flag in re.findall(r"(?<!\S)--([\w-]+)", command.split(programs[0], 1)[1]):
            assert f"--{flag}" in help_of(programs[0]), f"{name_of(page)}: {programs[0]} has no --{flag}"
    cmake = "".join(p.read_text() for p in [*ROOT.glob("c*/**/CMakeLists.txt"), ROOT / "CMakeLists.txt"])
    for option in re.findall(r"-D(\w+)=", command):
        known = option.startswith("CMAKE_") or option.endswith(("_DIR", "_ROOT")) or f"option({option} " in cmake
        assert known or f"set({option} " in cmake, f"{name_of(page)}: no CMake option {option}"
    for extra in re.findall(r"pip install .*\[(\w+)\]", command):
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(), f"{name_of(page)}: no extra [{extra}]"
    for word in re.findall(r"pytest .*-k (\w+)", command):
        assert any(word in (ROOT / name).read_text() for name in scripts), f"{name_of(page)}: no test {word}"


@pytest.fixture(scope="session")
def trained_bundle(tmp_path_factory) -> Path:
    """A tiny Panda network of a few steps, exported."""
    folder = tmp_path_factory.mktemp("trained")
    train = "train.py --data_path online --preset tiny --max_steps 60 --warmup_steps 10 --learning_rate 3e-3"
    for arguments in (
        f"{train} --save_interval 0 --output_dir {folder}/run",
        f"export.py --checkpoint {folder}/run/checkpoints/final_model.pth --output {folder}/bundle",
    ):
        script, *rest = arguments.split()
        run(python(), ROOT / "scripts" / script, *rest, **environment())
    return folder / "bundle"


def environment() -> dict[str, str]:
    return {
        "PATH": f"{Path(python()).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CMAKE_GENERATOR": "Ninja",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The repository as it was cloned, where a page may write."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n"):
        top = name.partition("/")[0]
        if top and not (tmp_path / top).exists():
            (tmp_path / top).symlink_to(ROOT / top)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_runs_as_printed(page, folder, request):
    text = page.read_text()
    if BUNDLE in text and "--output outputs/panda" not in text:
        shutil.copytree(request.getfixturevalue("trained_bundle"), folder / BUNDLE)
    scope, unbuilt = {"__name__": "__main__"}, []
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + shortened(block.text), name_of(page), "exec"), scope)
        elif block.language in ("cpp", "c", "cmake") and not why_not(page, block.text):
            name = re.match(r"(?://|/\*|#) ([\w./]+)", block.text)
            assert name, f"{where}: name the file in the first line"
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(block.text)
            unbuilt.append(name[1])
        elif block.language == "bash":
            steps = [command for command in commands(shortened(block.text)) if not why_not(page, command)]
            unbuilt = [name for name in unbuilt if name.partition("/")[0] not in " ".join(steps)]
            script = "set -euo pipefail\n" + "\n".join(steps)
            print(run("timeout", str(LONGEST_S), "bash", "-c", script, **environment()))
    assert not unbuilt, f"{name_of(page)}: nothing builds {unbuilt}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        directive = re.fullmatch(r"\{(toctree|eval-rst|doxygen(?:file|function|class|struct))\}( \S+)?", block.language)
        assert directive or block.language in LANGUAGES, (
            f"{name_of(page)}:{block.line}: ```{block.language}, expected one of {LANGUAGES}"
        )
        hidden = block.language == "text" and block.text.split()[0] in COMMANDS
        assert not hidden, f"{name_of(page)}:{block.line}: a command in a ```text block does not run"


def test_the_tables_hold_nothing_that_no_page_prints():
    printed = [(page, block) for page in PAGES for block in blocks(page)]
    for text in SHORTER:
        users = [name_of(page) for page, block in printed if text in block.text and not why_not(page, block.text)]
        assert users, f"SHORTER: no page prints {text!r}"
    every = [c for page, block in printed for c in (commands(block.text) if block.language == "bash" else [block.text])]
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in every), f"NOT_RUN: no page prints {start!r}"
    for reason in [*NOT_RUN.values(), *NOT_RUN_PAGES.values()]:
        for path, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", reason):
            assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).exists(), reason


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_does_not_run_names_what_exists(page):
    """Commands that do not run here, and those within sentences."""
    skipped = [c for b in blocks(page) if b.language == "bash" for c in commands(b.text) if why_not(page, c)]
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    inline = [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose)]
    inline = [c for c in inline if " " in c and re.sub(r"^(\w+=\S* )+|^taskset -c 1 ", "", c).split()[0] in COMMANDS]
    for command in [*skipped, *inline]:
        check(page, command)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_tests_files_and_links_exist(page):
    text = page.read_text()
    for name in re.findall(r"`((?:tests|csrc|scripts|benchmarks|examples|mfik|docs)/[\w./-]+(?:::\w+)?)`", text):
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), f"{name_of(page)} names {path}"
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{name_of(page)} names {name}"
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.M) if anchor else []
        anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, f"{name_of(page)} links to {link}; {name_of(target)} has {anchors}"


def test_every_page_and_model_is_linked():
    readme, index, models = (
        (ROOT / name).read_text() for name in ("README.md", "docs/index.md", "docs/reference/models.md")
    )
    assert "(docs/index.md)" in readme
    for page in PAGES[1:]:
        linked = f"({name_of(page)})" in readme or f"({name_of(page).removeprefix('docs/')})" in index
        assert linked or name_of(page) == "docs/index.md", f"docs/index.md does not link to {name_of(page)}"
    for card in (ROOT / "mfik" / "models").glob("*/README.md"):
        assert f"(../../{card.relative_to(ROOT)})" in models, f"reference/models.md lacks {card.parent.name}'s card"


def test_the_drawn_architecture_is_the_tested_one():
    from test_architecture import ALLOWED

    text = (ROOT / "docs/developing.md").read_text()
    drawn = {name: set(arrows.split(", ")) for name, arrows in re.findall(r"^(\w+) +-> ([\w, .]+)$", text, re.M)}
    assert drawn == {name: others for name, others in drawn.items() if others - {"mfik._native"} == ALLOWED[name]}
    assert set(drawn) == {name for name, others in ALLOWED.items() if others}


def test_the_citation_names_this_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_a_wrong_page_fails(tmp_path):
    """The checks above see what they are for."""
    page = tmp_path / "page.md"
    fenced = "```bash\na && \\\n  b\n```\n"
    page.write_text(f"`python scripts/train.py --no_such_flag x`\n\n    python scripts/none.py\n\n{fenced}")
    assert [block.language for block in blocks(page)] == ["bash", "bash"]
    assert commands(blocks(page)[1].text) == ["a", "b"]
    with pytest.raises(AssertionError, match="no_such_flag"):
        test_what_does_not_run_names_what_exists(page)
    with pytest.raises(AssertionError, match="none.py"):
        check(page, blocks(page)[0].text)
