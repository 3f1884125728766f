"""Each example that runs an exported graph without mfik solves what can be reached, and checks its answers itself."""

import functools
import http.server
import re
import shutil
import sys
import threading

import pytest
import torch
from chromium import NEEDS_CHROMIUM, browser, until
from cmake_project import NEEDS_CMAKE, ROOT, configure, run
from programs import python
from selenium.webdriver.common.by import By

EXAMPLES = ROOT / "examples" / "graphs"
NEEDS_NODE = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node 18 or newer: apt-get install nodejs npm"),
]
SHOWN = r"tiago: poses of arm_tool_link in torso_fixed_link\nsolved.*\noff by 49[\d.]* m and "


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A shipped network's graphs, of a robot with joints that slide and joints that turn."""
    folder = tmp_path_factory.mktemp("graphs") / "tiago"
    export = [python(), ROOT / "scripts" / "export.py", "--model", "tiago", "--refine", "10", "--errors"]
    run(*export, "--output", folder, PYTHONPATH=str(ROOT))
    return folder


@pytest.fixture(scope="module")
def with_packages(bundle):
    """The examples beside the bundle, with the packages that they lock."""
    folder = bundle.parent / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules"))
    run("npm", "ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    shutil.copytree(bundle, folder / "tiago")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("libtorch")
    configure(EXAMPLES, folder, f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    run("cmake", "--build", folder)
    return folder / "solve"


def test_no_example_imports_mfik():
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".cpp", ".mjs", ".html"):
            assert not re.search(r"(import|from|include).*\bmfik\b[^-]*$", path.read_text(), re.M), path.name


def test_python_solves(bundle):
    assert re.search(SHOWN, run(sys.executable, EXAMPLES / "solve.py", bundle / "model.onnx"))


class TestLibtorch:
    pytestmark = NEEDS_CMAKE

    def test_it_solves(self, built, bundle):
        assert re.search(SHOWN, run(built, bundle / "model.ts"))


class TestNode:
    pytestmark = NEEDS_NODE

    def test_it_solves(self, with_packages, bundle):
        assert re.search(SHOWN, run("node", with_packages / "node.mjs", bundle))

    def test_a_wrong_kinematics_is_noticed(self, with_packages, bundle, tmp_path):
        for name in ("node.mjs", "solve.mjs"):
            shutil.copy(EXAMPLES / name, tmp_path)
        (tmp_path / "node_modules").symlink_to(with_packages / "node_modules")
        text = (EXAMPLES / "kinematics.mjs").read_text()
        (tmp_path / "kinematics.mjs").write_text(text.replace("Math.sin(q[j])", "-Math.sin(q[j])"))
        assert "not as expected: off by" in run("node", tmp_path / "node.mjs", bundle, expect=1)


class TestBrowser:
    pytestmark = [*NEEDS_NODE, NEEDS_CHROMIUM]

    def test_it_solves(self, with_packages, tmp_path):
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=with_packages)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with browser(tmp_path) as driver:
                driver.get(f"http://127.0.0.1:{server.server_port}/browser.html?bundle=tiago")
                answer = driver.find_element(By.ID, "answer")
                until(lambda: answer.text != "solving ...", "an answer")
                assert re.match(SHOWN, answer.text), answer.text
            server.shutdown()
