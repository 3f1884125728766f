"""Dependencies point one way (docs/developing.md)."""

import ast
import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mfik"
LONGEST = 450  # lines of a source
# One public class each: half of its lines are docstrings and typed keywords, and its methods share all of its state.
LONGER = {"mfik/solve/solver.py", "mfik/train/v1/trainer.py"}
SOURCES = (".py", ".cpp", ".hpp", ".h", ".c", ".cu", ".cuh", ".js", ".mjs", ".ts")
FOLDERS = (".ci", "benchmarks", "cmake", "csrc", "examples", "mfik", "scripts", "tests", "web")
# A package may import itself and what stands here; every one may import those of OPEN.
ALLOWED = {
    "errors": set(),
    "files": set(),
    "native": set(),
    "needs_torch": set(),
    "progress": set(),
    "cluster": set(),
    "writing": set(),
    "kinematics": set(),
    "collision": {"kinematics"},
    "robots": {"collision", "kinematics"},
    "ops": {"kinematics"},
    "report": set(),
    "data": {"solve", "robots", "ops", "kinematics"},
    "model": {"ops", "robots", "kinematics"},
    "train": {"model", "data", "ops", "robots", "kinematics", "report"},
    "export": {"model", "robots"},
    "solve": {"export", "ops", "robots", "collision", "kinematics"},
    "path": {"solve", "robots", "collision", "report"},
    "reach": {"cluster", "solve", "robots", "collision", "report"},
    "torch": {"solve", "ops", "robots", "kinematics"},
    "fit": {"train", "eval", "export", "solve", "model", "data", "robots", "report"},
    "eval": {"solve", "robots", "kinematics", "report"},
    "view": {"reach", "solve", "robots", "collision"},
    "cli": {
        "fit",
        "view",
        "eval",
        "path",
        "reach",
        "cluster",
        "report",
        "train",
        "data",
        "solve",
        "export",
        "model",
        "robots",
        "collision",
    },  # fmt: skip
}
OPEN = {"errors", "files", "native", "needs_torch", "progress", "writing", "_native", "__version__"}
MODULES = {
    ".".join(("mfik", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def nodes_of(node, type_checking):
    """Yield all nodes below one, inside functions too; on demand without those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not type_checking:
            continue
        yield child
        yield from nodes_of(child, type_checking)


def imported(text, *, type_checking):
    """Yield the modules of mfik that a source imports; `from package import name` is a module or the package."""
    for node in nodes_of(ast.parse(text), type_checking):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}: write it in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "mfik":
                while name not in MODULES and name.count(".") > 1:  # a name in a module, not one itself
                    name = name.rpartition(".")[0]
                yield name


def package_of(module):
    return module.split(".")[1] if "." in module else ""


def circle(graph):
    """Return a circle of a graph (targets by node) as a list that ends where it begins; empty if there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        for target in sorted(graph.get(node, ())):
            if found := visit(target):
                return found
        path.pop()
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node))), [])


def test_imports_point_one_way():
    used = {package: set() for package in ALLOWED}
    for module, path in MODULES.items():
        if (package := package_of(module)) in ("", "__main__"):
            continue
        assert package in ALLOWED, f"unknown package {package}: give it a place in ALLOWED"
        targets = imported(path.read_text(), type_checking=True)
        used[package] |= {package_of(target) for target in targets} - {package, "", *OPEN}
    assert any(used.values()), "the scan found no imports at all"
    wrong = {package: sorted(targets - ALLOWED[package]) for package, targets in used.items()}
    assert not {package: targets for package, targets in wrong.items() if targets}
    unused = {package: sorted(targets - used[package]) for package, targets in ALLOWED.items()}
    assert not {package: targets for package, targets in unused.items() if targets}, "arrows that nobody uses"


def test_no_module_imports_itself_by_way_of_others():
    """Wherever an import stands, but for those that only a type checker reads."""
    graph = {name: set(imported(path.read_text(), type_checking=False)) - {name} for name, path in MODULES.items()}
    assert not (found := circle(graph)), " -> ".join(found)


def test_the_scan_sees_imports_where_they_hide():
    text = """
from typing import TYPE_CHECKING
import mfik.errors
if TYPE_CHECKING:
    from mfik.view import Session
class A:
    def f(self):
        from mfik.robots.robot import Robot
        from mfik import __version__
        if True:
            from mfik.data import source, generate
"""
    run = ["mfik.errors", "mfik.robots.robot", "mfik.__version__", "mfik.data.source", "mfik.data.generate"]
    assert list(imported(text, type_checking=False)) == run
    assert list(imported(text, type_checking=True)) == [run[0], "mfik.view", *run[1:]]
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"e"}, "e": {"b"}}
    assert circle(graph) == ["b", "d", "e", "b"]
    assert not circle({**graph, "e": set()})


def test_every_name_in_all_exists():
    for path in PACKAGE.rglob("__init__.py"):
        name = ".".join(("mfik", *path.parent.relative_to(PACKAGE).parts))
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"


def test_sources_are_short_enough_to_read():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES]
    own = [path.relative_to(ROOT) for path in files if not {"node_modules", "dist", "_cpp"} & set(path.parts)]
    longer = {path.as_posix() for path in own if len((ROOT / path).read_text().splitlines()) > LONGEST}
    assert len(own) > 300 and longer == LONGER
