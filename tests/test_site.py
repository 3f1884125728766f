"""The reference site builds without a warning and names every public name of Python, C++ and C."""

import importlib
import os
import pkgutil
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import pytest
from cmake_project import ROOT, run

import mfik

HEADERS = ROOT / "csrc" / "include" / "mfik"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; any warning of Sphinx, Doxygen or a docstring fails it."""
    if shutil.which("doxygen") is None:
        pytest.skip("needs doxygen: apt-get install doxygen")
    pytest.importorskip("breathe", reason="needs `pip install 'mfik[docs]'`")
    folder = tmp_path_factory.mktemp("site")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", ROOT / "docs", folder, PATH=path)
    return folder


@pytest.fixture(scope="module")
def names(site) -> dict[str, set[str]]:
    """The names on the site by domain: py, cpp, c."""
    data = (site / "objects.inv").read_bytes()
    found: dict[str, set[str]] = {"py": set(), "cpp": set(), "c": set()}
    for line in zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines():
        name, domain = re.match(r"(.+?) (\w+):", line).groups()
        found.get(domain, set()).add(name)
    return found


def public_names() -> set[str]:
    """Names in `__all__` of each package, and what a module without one defines that is not private."""
    found = set()
    for info in pkgutil.walk_packages(mfik.__path__, "mfik."):
        if info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
            package = importlib.import_module(info.name)
            found |= {f"{info.name}.{name}" for name in getattr(package, "__all__", ())}
    for name in ("mfik.errors", "mfik.fit"):
        module = importlib.import_module(name)
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name]
        found |= {f"{name}.{key}" for key in own if not key.startswith("_")}
    return found


@pytest.mark.slow
def test_every_public_name_of_python_is_on_the_site(names):
    public = public_names()
    assert {"mfik.solve.Solver", "mfik.train.v1.TrainConfig", "mfik.errors.MfikError"} <= public
    assert not public - names["py"]


def declared(header: str) -> str:
    """A header without comments, strings and the parts that are not public."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", (HEADERS / header).read_text(), flags=re.S)
    return re.sub(r"^  private:.*?^\};", "};", text, flags=re.S | re.M)


@pytest.mark.slow
def test_every_public_name_of_c_is_on_the_site(names):
    text = declared("mfik.h")
    public = set(re.findall(r"\b(mfik_\w+)\(", text)) | set(re.findall(r"\b(MFIK_\w+) = ", text))
    public |= set(re.findall(r"^typedef .*?\b(mfik_\w+);", text, re.M)) | set(re.findall(r"^} (mfik_\w+);", text, re.M))
    public |= set(re.findall(r"^#define (MFIK_\w+)", text, re.M)) - {"MFIK_MFIK_H", "MFIK_NOEXCEPT"}
    for name in re.findall(r"^} (mfik_\w+);", text, re.M):
        body = re.search(rf"struct {name} {{(.*?)}}", text, re.S)[1]
        public |= {f"{name}.{field}" for field in re.findall(r"(\w+)(?:\[\d+\])?;", body)}
    assert {"mfik_solve", "MFIK_SOLVED", "mfik_options.tol_pos_m", "mfik_status", "MFIK_API"} <= public
    on_site = {name.replace("@", "") for name in names["c"]}
    assert not {name for name in public if not any(n == name or n.endswith(f".{name}") for n in on_site)}


@pytest.mark.slow
def test_every_public_name_of_cpp_is_on_the_site(names, site):
    """What Doxygen finds is on the site, and it finds what the headers declare."""
    public = set()
    for path in (site / ".doctrees" / "doxygen" / "xml").glob("*mfik*.xml"):
        for compound in ElementTree.parse(path).iter("compounddef"):
            scope = compound.findtext("compoundname")
            if compound.get("kind") in ("class", "struct") and "::" in scope:
                public.add(scope)
            if not scope.startswith("mfik::") and scope != "mfik":
                continue
            for member in compound.iter("memberdef"):
                if member.get("prot") == "public":
                    public.add(f"{scope}::{member.findtext('name')}")
                    values = member.findall("enumvalue")
                    public |= {f"{scope}::{member.findtext('name')}::{value.findtext('name')}" for value in values}
    last = {name.rpartition("::")[2] for name in public}
    for header in sorted(path.name for path in HEADERS.glob("*.hpp")):
        text = declared(header)
        types = re.findall(r"^(?:class|struct|enum class|using) (\w+)[^;]*[{=]", text, re.M)
        values = re.findall(r"\b(k[A-Z]\w+) = ", text)
        calls = re.findall(r"^ *(?:\[\[nodiscard\]\] )?(?:static |constexpr )*[\w:<>*& ]+[ *&](\w+)\(", text, re.M)
        assert types or calls, header
        assert not {*types, *values, *calls} - last - {"operator"}, header
    assert {"mfik::Solver::solve", "mfik::Status::kSolved", "mfik::kMaxAttempts", "mfik::load_onnx"} <= public
    assert not public - names["cpp"]
