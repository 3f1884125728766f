"""The viewer in a real browser: headless Chromium, driven through selenium, with software rendering."""

import csv
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import matplotlib.image
import numpy as np
import pinocchio as pin
import pytest
import trimesh
from chromium import DEADLINE_S, NEEDS_CHROMIUM, browser, until
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import mfik.robots
from mfik.collision import Box, World
from mfik.robots import load_robot
from mfik.solve import Solver, Status
from mfik.view import Playback, Session, chain_bodies, draw_robot, mesh_bodies
from mfik.view.app import Viewer

ROOT = Path(__file__).resolve().parents[2]
pytestmark = NEEDS_CHROMIUM


class Page:
    """The viewer, and the browser that shows it."""

    def __init__(self, viewer, browser, downloads):
        self.viewer, self.session, self.browser, self.downloads = viewer, viewer.session, browser, downloads
        browser.get(viewer.url)
        (self.client,) = until(lambda: list(viewer.server.get_clients().values()), "the page to connect")
        until(lambda: "position error" in self.text(), "the panel")
        until(lambda: self.colored() > 1000, "the arm to be drawn")

    def text(self):
        return self.browser.find_element(By.TAG_NAME, "body").text

    def do(self, act):
        """Run something between two updates of the viewer, and wait for it."""
        done = threading.Event()
        self.viewer.call(lambda: (act(), done.set()))
        assert done.wait(DEADLINE_S)

    def screenshot(self, name="shot.png"):
        path = self.downloads / name
        self.browser.save_screenshot(str(path))
        return matplotlib.image.imread(path)[..., :3]

    def colored(self):
        """Count the pixels that are not grey, left of the panel."""
        return int((np.ptp(self.screenshot()[:, :850], axis=-1) > 0.2).sum())

    def drawn(self, red=False):
        """Count the blue pixels of a solution, or the red ones of an unsolved target, left of the panel."""
        r, g, b = np.moveaxis(self.screenshot()[:, :850], -1, 0)
        return int(((r > g + 0.35) & (r > b + 0.35) if red else b > r + 0.2).sum())

    def pixel(self, point):
        """Project a point of the scene [m] into the page."""
        camera = self.client.camera
        w, x, y, z = camera.wxyz
        x, y, z = pin.Quaternion(w, x, y, z).matrix().T @ (point - camera.position)
        rect = self.browser.execute_script("return document.querySelector('canvas').getBoundingClientRect().toJSON()")
        focal = 0.5 * rect["height"] / np.tan(0.5 * camera.fov)
        return np.array(
            [rect["x"] + 0.5 * rect["width"] + focal * x / z, rect["y"] + 0.5 * rect["height"] + focal * y / z]
        )

    def drag(self, axis, distance, handle=None):
        """Drag the arrow of an axis of a handle so far along it [m]; try other places on the arrow if one misses."""
        handle = handle or self.viewer.handle
        before = np.concatenate([handle.position, handle.wxyz])
        direction = pin.XYZQUATToSE3(before[[0, 1, 2, 4, 5, 6, 3]]).rotation[:, axis]
        size = handle.scale
        for share in (0.8, 0.65, 0.9, 0.55):
            start = before[:3] + share * size * direction
            path = [self.pixel(start + distance * step * direction) for step in np.linspace(0.0, 1.0, 8)]
            mouse = ActionBuilder(self.browser, duration=30)
            mouse.pointer_action.move_to_location(*path[0].round().astype(int).tolist()).pointer_down()
            for place in path[1:]:
                mouse.pointer_action.move_to_location(*place.round().astype(int).tolist())
            mouse.pointer_action.pointer_up()
            mouse.perform()
            end = time.monotonic() + 5.0
            while time.monotonic() < end:
                if np.linalg.norm(handle.position - before[:3]) > 0.01 and not self.viewer.busy:
                    return direction
                time.sleep(0.05)
        raise AssertionError(f"no place on the arrow of axis {axis} moved the handle; it is drawn at {path[0]}")

    def press(self, label):
        self.browser.find_element(By.XPATH, f"//button[normalize-space()='{label}']").click()


@contextmanager
def opened(session, bodies, tmp_path_factory, playback=None, note=""):
    """Open a viewer in a browser of its own."""
    downloads = tmp_path_factory.mktemp("downloads")
    viewer = Viewer(session, bodies, port=8900, csv=downloads / "written.csv", note=note, playback=playback)
    thread = threading.Thread(target=viewer.run, daemon=True)
    thread.start()
    try:
        with browser(tmp_path_factory.mktemp("chromium")) as driver:
            behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
            driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
            yield Page(viewer, driver, downloads)
    finally:
        viewer.stop()
        thread.join()


@pytest.fixture(scope="module")
def page(example_robots, tmp_path_factory):
    urdf = example_robots / "panda_description" / "urdf" / "panda.urdf"
    session = Session(Solver.load(ROOT / "tests" / "golden" / "v1.safetensors"))
    with opened(session, mesh_bodies(session.solver.robot, urdf), tmp_path_factory) as found:
        yield found


@pytest.fixture
def at_home(page):
    """Return the page with arm and camera as they were when it was opened."""

    def reset():
        page.session.mode = "any seed"
        page.session.home()

    page.do(reset)
    camera, initial = page.client.camera, page.viewer.server.initial_camera
    camera.position, camera.look_at = initial.position, initial.look_at
    until(lambda: np.allclose(page.viewer.handle.position, page.session.target[:3]), "the handle to return")
    until(lambda: page.drawn() > 1000, "the arm to be drawn")
    return page


def pinocchio_error_m(session):
    """Return the distance from the target of the joints shown, by Pinocchio."""
    preset = Path(mfik.robots.__file__).parent / "urdf" / "panda.urdf"
    model = pin.buildModelFromUrdf(str(preset))
    data = model.createData()
    full = pin.neutral(model)
    full[: session.solver.dof] = session.q
    pin.framesForwardKinematics(model, data, full)
    return float(np.linalg.norm(data.oMf[model.getFrameId("panda_link8")].translation - session.target[:3]))


def test_a_drag_moves_the_handle_and_the_arm_follows(at_home):
    page = at_home
    before, shot = page.session.target.copy(), page.screenshot()
    page.drag(axis=0, distance=-0.12)
    moved = page.session.target - before
    assert np.linalg.norm(moved[:3]) == pytest.approx(0.12, abs=0.02) and np.abs(moved[3:]).max() < 1e-6
    np.testing.assert_allclose(page.session.target[:3], page.viewer.handle.position, atol=1e-9)
    assert page.session.state.result.status is Status.SOLVED
    assert pinocchio_error_m(page.session) < 1e-3
    until(lambda: (np.abs(page.screenshot() - shot)[:, :850].max(-1) > 0.1).sum() > 2000, "the picture to change")
    assert "solved" in page.text()


def test_an_unreachable_target_shows_its_reason(at_home):
    page = at_home
    camera = page.client.camera
    near = page.drawn()
    camera.position = 2.5 * np.asarray(page.viewer.server.initial_camera.position)
    until(lambda: page.drawn() < 0.5 * near, "the camera to move away")
    red = page.drawn(red=True)
    page.drag(axis=0, distance=0.9)
    assert page.session.state.result.status is Status.UNREACHABLE
    until(lambda: "farther from the first joint than the arm reaches" in page.text(), "the reason")
    until(lambda: page.drawn(red=True) > red + 500, "the arm to turn red")


def test_the_picture_shows_arm_and_panel(at_home):
    page = at_home
    picture = page.screenshot("whole.png")
    assert len(np.unique((255 * picture[:, :850]).astype(np.uint8).reshape(-1, 3), axis=0)) > 500
    assert page.drawn() > 5000
    text = page.text()
    for word in ("position error", "time of a solve", "manipulability", "one step", "panda_joint7", "us", "deg"):
        assert word in text, word


def test_a_joint_slider_moves_arm_and_target(at_home):
    page = at_home
    sliders = page.browser.find_elements(By.CSS_SELECTOR, "[role=slider]")
    joint = sliders[-7]  # panda_joint1, whose slider stands first of seven
    before = page.session.q[0]
    for _ in range(5):
        joint.send_keys(Keys.ARROW_RIGHT)
    until(lambda: page.session.q[0] == pytest.approx(before + np.radians(0.5), abs=1e-6), "the joint to turn")
    assert pinocchio_error_m(page.session) < 1e-9
    until(lambda: np.allclose(page.viewer.handle.position, page.session.target[:3]), "the handle to follow")


def test_a_recording_replays_and_is_downloaded(at_home):
    page = at_home
    page.do(lambda: page.session.record(True))
    page.drag(axis=0, distance=-0.1)
    page.do(lambda: page.session.record(False))
    recorded = list(page.session.recorded)
    assert len(recorded) > 3

    page.press("save CSV")
    file = page.downloads / "panda.csv"
    until(file.exists, "the download")
    header, *rows = csv.reader(file.read_text().splitlines())
    assert len(rows) == len(recorded) and header[1:8] == list(page.session.solver.robot.joint_names)
    np.testing.assert_array_equal(np.array(rows[-1][1:8], float), recorded[-1].q)

    page.press("write CSV")
    written = page.downloads / "written.csv"
    until(lambda: written.exists() and written.read_text() == file.read_text(), "the same in the file of --csv")

    page.do(page.session.home)
    seen = []
    page.press("replay")
    until(lambda: seen.append(page.session.state) or seen[-1] is recorded[-1], "the end of the replay")
    assert any(state in recorded[:-1] for state in seen)
    until(lambda: np.allclose(page.viewer.handle.position, recorded[-1].target[:3]), "the handle to follow")
    assert page.session.recorded == recorded


def test_updates_keep_up(at_home):
    """Prints what docs/how-to/viewer.md reports; the bound leaves room for a busy machine."""
    page = at_home
    centre, start = page.session.target.copy(), time.monotonic()
    swinging = threading.Event()

    def swing():
        while not swinging.wait(0.05):  # as often as the browser sends a handle that is dragged
            pose = centre.copy()
            pose[1] += 0.2 * np.sin(2.0 * (time.monotonic() - start))
            page.viewer.call(lambda pose=pose: page.viewer.drag(pose))

    thread = threading.Thread(target=swing)
    thread.start()
    try:
        count_frames = """
            const done = arguments[0], start = performance.now();
            let count = 0;
            const next = () => {
                count++;
                performance.now() - start > 4000 ? done(count / 4) : requestAnimationFrame(next);
            };
            requestAnimationFrame(next);"""
        before, began = page.viewer.updates, time.monotonic()
        frames = page.browser.execute_async_script(count_frames)
        updates = (page.viewer.updates - before) / (time.monotonic() - began)
    finally:
        swinging.set()
        thread.join()
    print(f"{updates:.0f} updates a second, of which the browser drew {frames:.0f}")
    assert updates > 20 and frames > 1


def test_an_obstacle_is_dragged_and_what_collides_with_it_turns_red(panda, tmp_path_factory):
    crate = Box([0.15, 0.5, 0.3], [0.85, 0.0, 0.35, 1, 0, 0, 0], "crate")
    session = Session(Solver.from_robot(panda), World([crate]))
    with opened(session, chain_bodies(panda), tmp_path_factory) as page:
        page.do(lambda: session.set_target([0.45, 0.0, 0.45, 0, 1, 0, 0]))
        assert session.state.result.status is Status.SOLVED
        until(lambda: "crate" in page.text() and "clearance of links" in page.text(), "the clearance")
        before, picture = session.state.clearance.distance, page.screenshot()
        label = page.browser.find_element(By.XPATH, "//label[normalize-space()='spheres']")
        box = page.browser.find_element(By.ID, label.get_attribute("for"))
        box.click()
        until(lambda: (np.abs(page.screenshot() - picture)[:, :850].max(-1) > 0.1).sum() > 2000, "the spheres")
        box.click()
        page.do(lambda: page.viewer.choose_shape("crate"))
        until(lambda: page.viewer.obstacles.handle.visible, "the handle of the crate")
        red = page.drawn(red=True)
        page.drag(axis=0, distance=-0.4, handle=page.viewer.obstacles.handle)
        assert session.world.shapes[0].pose[0] == pytest.approx(0.45, abs=0.05)
        until(lambda: session.state.result.status is Status.IN_COLLISION, "a collision")
        assert session.state.clearance.distance < 0 < before
        until(lambda: page.drawn(red=True) > red + 500, "the arm to turn red")
        until(lambda: "in collision" in page.text(), "the status")


def test_a_path_is_played_with_plots_of_joints_and_clearance(panda, tmp_path_factory):
    q = np.repeat(np.array([[0, -0.785, 0, -2.356, 0, 1.571, 0.785]]), 1201, axis=0)
    q[:, 0] = np.linspace(-1, 1, 1201)
    post = Box([0.1, 0.1, 1.5], [0.75, 0.0, 0.5, 1, 0, 0, 0], "post")
    solver = Solver.from_robot(panda)
    session = Session(solver, World([post]))
    playback = Playback(solver, q, 1e-3 * np.arange(len(q)))
    with opened(session, chain_bodies(panda), tmp_path_factory, playback) as page:
        np.testing.assert_array_equal(session.q, q[0])
        until(lambda: "to the world" in page.text() and "panda_joint1 [deg]" in page.text(), "the plots")
        assert len(page.browser.find_elements(By.CSS_SELECTOR, ".u-over")) == 2
        picture, trail = page.screenshot("path.png"), page.viewer._player._trail
        page.press("play")
        seen = []
        until(lambda: seen.append(session.q[0]) or seen[-1] == 1.0, "the end of the path")
        assert len(set(seen)) > 5 and (np.diff(seen) >= 0).all(), "it goes through the rows in between, in order"
        until(lambda: not page.viewer.busy, "rest")
        until(lambda: (np.abs(page.screenshot("end.png") - picture)[:, :850].max(-1) > 0.1).sum() > 2000, "the arm")
        np.testing.assert_allclose(trail.points[-1, 1], panda.fk(q[-1])[:3], atol=1e-6)
        reds = [(trail.colors[..., 0] > trail.colors[..., 1]).sum()]
        page.do(lambda: session.move_shape("post", [0.35, 0.0, 0.5, 1, 0, 0, 0]))
        until(
            lambda: (trail.colors[..., 0] > trail.colors[..., 1]).sum() > reds[0], "the trail to turn red by the post"
        )
        (label,) = (x for x in page.browser.find_elements(By.XPATH, "//label[normalize-space()='row']"))
        slider = label.find_element(By.XPATH, "following::*[@role='slider'][1]")
        for _ in range(3):
            slider.send_keys(Keys.ARROW_LEFT)
        until(lambda: session.q[0] == q[1197, 0], "the slider to go back by three rows")
        page.press("play")
        until(lambda: page.viewer._player.playing, "the motion")
        page.press("home")
        until(lambda: not page.viewer._player.playing, "what is under way to end where something else is asked for")


COLORED = """
<robot name="colored">
  <material name="magenta"><color rgba="0.9 0.1 0.9 1"/></material>
  <link name="base"/>
  <link name="first"><visual>
    <origin xyz="0.4 0 0.3"/><geometry><mesh filename="green.dae" scale="0.2 0.2 0.2"/></geometry>
  </visual></link>
  <link name="second"><visual>
    <origin xyz="0.3 0 0.1"/><geometry><mesh filename="cube.stl" scale="0.2 0.2 0.2"/></geometry>
    <material name="magenta"/>
  </visual></link>
  <link name="green"/><link name="magenta"/><link name="tip"/>
  <joint name="one" type="revolute"><parent link="base"/><child link="first"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
  <joint name="two" type="revolute"><parent link="first"/><child link="second"/><axis xyz="0 1 0"/>
    <origin xyz="0.4 0 0.3" rpy="0 0 0.4"/><limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
  <joint name="a" type="fixed"><parent link="first"/><child link="green"/><origin xyz="0.4 0 0.3"/></joint>
  <joint name="b" type="fixed"><parent link="second"/><child link="magenta"/><origin xyz="0.3 0 0.1"/></joint>
  <joint name="c" type="fixed"><parent link="second"/><child link="tip"/><origin xyz="0.7 0 0"/></joint>
</robot>
"""


def test_visual_meshes_arrive_in_their_colours_and_places(tmp_path, tmp_path_factory):
    cube = trimesh.creation.box((1, 1, 1))
    cube.export(tmp_path / "cube.stl")
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[20, 200, 40, 255])
    cube.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(cube.vertices), 2)), material=material)
    (tmp_path / "green.dae").write_bytes(trimesh.exchange.dae.export_collada([cube]))
    path = tmp_path / "colored.urdf"
    path.write_text(COLORED)
    robot = load_robot(path, tip_link="tip")
    centres = [load_robot(path, tip_link=color) for color in ("green", "magenta")]
    session = Session(Solver.from_robot(robot))
    session.num_ghosts = 0
    bodies, note = draw_robot(robot, path)
    with opened(session, bodies, tmp_path_factory, note=note) as page:

        def seen():
            """The colours that are drawn at the middle of the cubes: where forward kinematics has them."""
            picture, colors = page.screenshot(), []
            for chain in centres:
                x, y = page.pixel(chain.fk(session.q[: chain.dof])[:3]).round().astype(int)
                r, g, b = picture[y, x]
                shares = {"green": g - max(r, b), "magenta": min(r, b) - g, "red": r - max(g, b)}
                best = max(shares, key=shares.get)
                colors.append(best if shares[best] > 0.2 else "none")
            return colors

        for q in ([0.4, -0.5], [-0.9, 0.3], [0.4, 0.9]):
            page.do(lambda q=q: session.set_joints(q))
            until(lambda: seen() == ["green", "magenta"], f"the cubes to be drawn at {q}")
        assert f"visual meshes of {path}" in page.text().replace("\n", "") and "unsolved" in page.text()
        page.do(lambda: session.set_target([3, 0, 0, 1, 0, 0, 0]))
        until(lambda: seen() == ["red", "red"], "the cubes to turn red where the target is out of reach")


def test_the_command_listens_on_loopback_only():
    command = [sys.executable, str(ROOT / "scripts" / "view.py"), "--robot", "ur10", "--port", "8950"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = next(line for line in process.stdout if "open http" in line)
        url = line.split("open ")[1].split()[0]
        assert url.startswith("http://127.0.0.1:")
        assert b"<html" in urllib.request.urlopen(url, timeout=10).read().lower()[:500]
        port = int(url.rsplit(":", 1)[1])
        listening = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {row[1] for row in listening if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
        assert addresses == {f"0100007F:{port:04X}"}
    finally:
        process.terminate()
        process.wait(10)
