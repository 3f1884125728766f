"""The page in a real browser: drags of its handle, and answers judged by forward kinematics in Python.

It is built as `npm run build` builds it, and served as files from a folder.
"""

import functools
import http.server
import shutil
import threading
import time

import matplotlib.image
import numpy as np
import pytest
import torch
from chromium import NEEDS_CHROMIUM, browser, until
from cmake_project import ROOT, run
from programs import python
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By

from mfik.export import load_bundle
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.solve import model_path

ARMS = ("panda", "tiago")  # joints that turn, and one that slides; an export takes half of the time
pytestmark = [
    pytest.mark.slow,
    NEEDS_CHROMIUM,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node 18 or newer: apt-get install nodejs npm"),
]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The page, built from a copy of its sources."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "web", folder / "web", ignore=shutil.ignore_patterns("node_modules", "dist", "build"))
    for name in ("examples", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    npm = ["npm", "--prefix", folder / "web"]
    run(*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    run(*npm, "run", "build", "--", *ARMS, PYTHON=python(), PYTHONPATH=str(ROOT))
    return folder / "web" / "dist"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Write nothing."""


class Page:
    def __init__(self, driver):
        self.driver = driver

    def get(self, name):
        return self.driver.find_element(By.ID, name)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def choose(self, name, value):
        self.run("const [list, value] = arguments; list.value = value; list.onchange();", self.get(name), value)
        self.settle()

    def settle(self):
        until(lambda: self.run("return globalThis.page?.idle()"), "an answer")

    def shown(self, name):
        return float(self.get(name).text)

    def state(self):
        """Return joints and target pose."""
        return (np.array(self.run(f"return page.{what}"), float) for what in ("joints()", "scene.pose()"))

    def drag(self, way):
        """Press the handle where `way` begins and follow it: points in the target's frame, in sizes of the handle."""
        points = self.run(
            """const {scene} = page, {handle, camera} = scene, {clientWidth, clientHeight} = scene.renderer.domElement;
            const distance = scene.target.position.distanceTo(camera.position);  // size on screen is fixed
            const scale = 1.9 / 4 * distance * Math.tan(Math.PI * camera.fov / 360) / camera.zoom * handle.size;
            scene.target.updateMatrixWorld();
            return arguments[0].map((point) => {
                const at = scene.target.position.clone().set(...point).multiplyScalar(scale)
                    .applyMatrix4(scene.target.matrixWorld).project(camera);
                return [clientWidth * (1 + at.x) / 2, clientHeight * (1 - at.y) / 2];
            });""",
            [list(point) for point in way],
        )
        mouse = ActionBuilder(self.driver, duration=40)
        for i, (x, y) in enumerate(points):
            mouse.pointer_action.move_to_location(round(x), round(y))
            if i == 0:
                mouse.pointer_action.pointer_down()
        mouse.pointer_action.pointer_up()
        mouse.perform()
        self.settle()

    def quiet(self):
        """Whether nothing but the renderer's remarks on its speed was written to the console."""
        return [line for line in self.driver.get_log("browser") if "GL Driver Message" not in line["message"]] == []


@pytest.fixture(scope="module")
def page(dist, tmp_path_factory):
    handler = functools.partial(Quiet, directory=dist)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browser(tmp_path_factory.mktemp("profile")) as driver:
            driver.get(f"http://127.0.0.1:{server.server_port}/")
            page = Page(driver)
            page.settle()
            yield page
        server.shutdown()


@pytest.fixture(params=ARMS)
def arm(request, page):
    page.choose("handle", "translate")
    page.choose("arm", request.param)
    page.run("arguments[0].click()", page.get("reset"))
    page.settle()
    return request.param


def judge(name, q, pose):
    """Return the errors of joints [mm, deg], by mfik's kinematics in Python, and whether they keep the limits."""
    _, robot, _ = load_bundle(model_path(name))
    reached, wanted = robot.fk(torch.from_numpy(q)), torch.from_numpy(pose)
    errors = 1000 * position_error_m(reached, wanted), torch.rad2deg(rotation_error_rad(reached, wanted))
    return *(error.item() for error in errors), bool(robot.within_limits(torch.from_numpy(q)).all())


def test_the_arm_follows_a_drag_along_an_axis_and_one_about_it(page, arm):
    q_before, before = page.state()
    page.drag([(0, 0, share) for share in np.linspace(0.5, 0.9, 6)])
    q, pose = page.state()
    assert 0.02 < np.linalg.norm(pose[:3] - before[:3]) < 0.5, "the handle was not moved"
    np.testing.assert_allclose(pose[3:], before[3:], atol=1e-9)
    assert np.abs(q - q_before).max() > 0.01
    millimetres, degrees, inside = judge(arm, q, pose)
    assert millimetres < 0.1 and degrees < 0.01 and inside
    assert abs(page.shown("position") - millimetres) < 1e-4 and abs(page.shown("rotation") - degrees) < 1e-4
    assert page.get("verdict").text == "solved" and 0 < page.shown("time") < 1000

    page.choose("handle", "rotate")
    for start in (-0.6, 1.0, 2.6, 4.2):  # where another ring lies before this one, its turn is tried elsewhere
        page.drag([(0.5 * np.cos(angle), 0.5 * np.sin(angle), 0) for angle in start + np.linspace(0.0, 0.4, 6)])
        q, turned = page.state()
        angle = 2 * np.arccos(min(abs(turned[3:] @ pose[3:]), 1.0))
        if angle > 0.05:
            break
    assert 0.05 < angle < 1.5, "the handle was not turned"
    np.testing.assert_allclose(turned[:3], pose[:3], atol=1e-9)
    millimetres, degrees, inside = judge(arm, q, turned)
    assert millimetres < 0.1 and degrees < 0.01 and inside
    assert page.quiet()


def test_a_target_out_of_reach_shows_its_true_error(page, arm):
    page.run("page.scene.place([0, 0, 5, 1, 0, 0, 0])")
    page.choose("reference", "home")
    q, pose = page.state()
    millimetres, degrees, inside = judge(arm, q, pose)
    assert page.get("verdict").text == "not reached" and millimetres > 1000 and inside
    assert page.shown("position") == pytest.approx(millimetres, abs=1)
    assert page.shown("rotation") == pytest.approx(degrees, abs=1)
    page.choose("reference", "last")


def test_it_answers_thirty_times_a_second(page, arm):
    page.get("circle").click()
    try:
        time.sleep(2.0)
        until(lambda: page.get("rate").text != "–" and page.shown("rate") >= 30, "thirty answers within a second")
        rate, before = page.shown("rate"), page.run("return page.scene.pose()")
        print(f"{arm}: {rate:.0f} answers a second of {page.shown('time')} ms, drawn by software")
        until(lambda: page.run("return page.scene.pose()") != before, "the target to move on")
        assert page.get("verdict").text == "solved"
    finally:
        page.get("circle").click()
    page.settle()
    assert page.quiet()


def test_it_goes_on_without_a_network(page):
    page.choose("handle", "translate")
    page.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        fetch = "const done = arguments[0]; fetch('index.html?again').then(() => done('there'), () => done('cut'))"
        assert page.driver.execute_async_script(fetch) == "cut"
        for other in ARMS:
            page.choose("arm", other)
            page.get("random").click()
            page.settle()
            q, pose = page.state()
            millimetres, _, inside = judge(other, q, pose)
            assert inside and page.shown("position") == pytest.approx(millimetres, rel=0.1, abs=1e-4)
    finally:
        page.driver.delete_network_conditions()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(1100, 760), (400, 800)])
def test_everything_is_in_view(page, scheme, width, height, tmp_path):
    page.choose("arm", "panda")
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        time.sleep(1.0)
        for name in ("scene", "arm", "handle", "reference", "circle", "random", "reset", "verdict", "rate"):
            box = page.run("return arguments[0].getBoundingClientRect().toJSON()", page.get(name))
            assert box["left"] >= 0 and box["right"] <= width and box["bottom"] <= height, (name, box)
        assert page.run("return document.documentElement.scrollWidth") == width
        page.driver.save_screenshot(str(tmp_path / "page.png"))
        picture = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
        scene = picture[: height // 2, : width // 2]
        assert (scene[0, 0].mean() > 0.5) == (scheme == "light")
        assert (np.abs(scene - scene[0, 0]).max(-1) > 0.1).mean() > 0.01, "no arm is drawn"
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
