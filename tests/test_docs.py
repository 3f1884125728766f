"""What the documentation says exists, exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_files_and_links_exist(page):
    text = page.read_text()
    for name in re.findall(r"`((?:tests|csrc|scripts|benchmarks|mfik|docs)/[\w./-]+(?:::\w+)?)`", text):
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), f"{page.name} names {path}"
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{page.name} names {name}"
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_exist_and_python_blocks_compile(page):
    text = page.read_text()
    for command in re.findall(r"python (scripts/\w+\.py[^`&]*)", text.replace("\\\n", " ")):
        script, *_ = command.split()
        source = (ROOT / script).read_text() + (ROOT / "mfik/train/v1/config.py").read_text()
        for flag in re.findall(r"--(\w+)", command.split("\n")[0]):
            assert flag in source, f"{page.name}: {script} has no --{flag}"
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        compile(block, page.name, "exec")


def test_the_training_example_runs_as_printed():
    """docs/training.md's loop; README's needs a trained bundle and is run with the README's commands."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.S)
    scope = {}
    exec(block, scope)
    assert scope["trainer"].global_step == 4
