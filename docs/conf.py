"""The reference site: `sphinx-build -W docs build/site`. Its pages are the Markdown files of this folder."""

import enum
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "mfik"
author = "the mfik authors"
release = next(
    line.split('"')[1] for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version = ")
)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "breathe"]

html_theme = "furo"
html_title = f"mfik {release}"
html_copy_source = False

# Pages: links and anchors as a Git web view resolves them.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Python: what each package names in __all__.
# Names that mfik.kinematics imports when they are asked for are there before autodoc lists them.
kinematics = importlib.import_module("mfik.kinematics")
vars(kinematics).update({name: getattr(kinematics, name) for name in kinematics.__all__})
default_role = "code"  # docstrings write `name` as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_default_options = {"members": True, "undoc-members": True}
napoleon_numpy_docstring = False

# C++ and C: Doxygen reads the headers, Breathe renders its XML.
breathe_default_project = "mfik"
breathe_show_include = False
breathe_domain_by_extension = {"hpp": "cpp", "h": "c"}


def described_by_the_class(app, what, name, obj, skip, options):
    """Leave out fields of a class: its docstring's Attributes section lists them, with units and shapes."""
    value = isinstance(obj, enum.Enum) and name in type(obj).__members__
    described = what == "class" and not (value or inspect.isroutine(obj) or isinstance(obj, property))
    return True if described else None


def without_the_types_own(app, what, name, obj, options, lines):
    """Drop what Python says of the type of a constant: its page says what the constant is."""
    if what == "data" and lines[:1] == (type(obj).__doc__ or "").splitlines()[:1]:
        lines.clear()


def read_headers(app, config):
    """Run Doxygen, whose XML Breathe renders."""
    folder = Path(app.doctreedir) / "doxygen"
    folder.mkdir(parents=True, exist_ok=True)
    settings = (ROOT / "docs" / "Doxyfile").read_text() + f'OUTPUT_DIRECTORY = "{folder}"\n'
    subprocess.run(["doxygen", "-"], input=settings, text=True, check=True, cwd=ROOT)
    config.breathe_projects = {"mfik": str(folder / "xml")}


def append_cards(app, page, source):
    """Put the cards of the models that ship, which lie in the package, onto the page that links to them."""
    if page != "reference/models":
        return
    for card in sorted((ROOT / "mfik" / "models").glob("*/README.md")):
        source[0] = source[0].replace(f"(../../{card.relative_to(ROOT)})", f"(#card-{card.parent.name})")
        text, fenced = "", False
        for line in card.read_text().splitlines(keepends=True):
            fenced ^= line.startswith("```")
            text += f"#{line}" if line.startswith("#") and not fenced else line
        source[0] += f"\n(card-{card.parent.name})=\n{text}"


def setup(app):
    app.connect("config-inited", read_headers)
    app.connect("autodoc-skip-member", described_by_the_class)
    app.connect("autodoc-process-docstring", without_the_types_own)
    app.connect("source-read", append_cards)
