"""Dependencies point one way (docs/developing.md)."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "mfik"
# A package may import itself and what stands here; every one may import those of OPEN.
ALLOWED = {
    "errors": set(),
    "files": set(),
    "native": set(),
    "cli": set(),
    "kinematics": set(),
    "robots": {"kinematics"},
    "ops": {"kinematics", "robots"},
    "report": set(),
    "data": {"robots", "ops", "kinematics"},
    "model": {"ops", "robots", "kinematics"},
    "train": {"model", "data", "ops", "robots", "kinematics", "report"},
    "export": {"model", "robots"},
    "solve": {"export", "ops", "robots", "kinematics"},
    "fit": {"train", "eval", "export", "solve", "model", "data", "robots", "report"},
    "eval": {"solve", "robots", "kinematics", "model", "report"},
    "view": {"solve", "robots"},
}
OPEN = {"errors", "files", "native", "_native", "__version__"}


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            names = [f"{node.module}.{alias.name}" if node.module == "mfik" else node.module for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("mfik."):
                yield name.split(".")[1]


def test_imports_point_one_way():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if package in ("__init__", "__main__"):
            continue
        for target in imported_packages(path):
            if target not in {package, *OPEN}:
                found.setdefault(package, set()).add(target)
    assert found, "the scan found no imports at all"
    assert set(found) <= set(ALLOWED), f"unknown packages {set(found) - set(ALLOWED)}: give them a place in ALLOWED"
    wrong = {package: sorted(targets - ALLOWED[package]) for package, targets in found.items()}
    assert not {package: targets for package, targets in wrong.items() if targets}


def test_every_name_in_all_exists():
    import importlib

    for path in PACKAGE.rglob("__init__.py"):
        name = ".".join(("mfik", *path.parent.relative_to(PACKAGE).parts))
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"
