"""The viewer: a `Session` shown in a browser by viser."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import viser
import viser.transforms as tf

from mfik.reach import ReachMap
from mfik.solve import Status
from mfik.view.bodies import Body, frames, ground_grid, reach, shrunk
from mfik.view.obstacles import NO_SHAPE, Obstacles
from mfik.view.panel import COLLIDING_GHOST, GHOST, ONE_STEP, SOLUTION, UNSOLVED, numbers_html
from mfik.view.playback import Playback
from mfik.view.player import Player
from mfik.view.reach_layer import ReachLayer, check_robot
from mfik.view.session import Mode, Session, State

_UPDATES_HZ = 40  # the browser sends the handle 20 times a second; between, the target glides to where it was last
_GLIDE = 0.6  # share of the way to the handle that the target goes in an update
_ARRIVED = 1e-4  # [m or rad] nearer than this the target is put on the handle
_PANEL_HZ = 8  # numbers and sliders cost the browser more than moving meshes
_APART = 2e-3  # [m or rad] an answer before refinement that is nearer to the solution than this is not drawn
_HANDS_OFF_S = 0.5  # a slider is not written to so long after it was moved by hand
_GHOSTS = 12

_BASE = (110, 118, 128)


class Viewer:
    """A session in a browser; `run` it, in a thread or not.

    Args:
        session: What is shown; only `run` may touch it from then on.
        bodies: Its robot's meshes.
        host: Address to listen on; whoever reaches it can move the target.
        port: Port to listen on; the next free one if it is taken.
        csv: File that the panel's button writes the recording to; default none.
        note: A line for the panel, such as why there are no meshes.
        playback: A path that the panel plays; default none.
        reach_map: A map of reach to show; default none.
    Raises:
        ArgumentError: The map is of another robot.
    """

    def __init__(
        self,
        session: Session,
        bodies: Sequence[Body],
        host: str = "127.0.0.1",
        port: int = 8080,
        csv: Path | None = None,
        note: str = "",
        playback: Playback | None = None,
        reach_map: ReachMap | None = None,
    ) -> None:
        if reach_map is not None:
            check_robot(reach_map, session.solver.robot)
        self.session = session
        self.updates = 0
        self.url = ""
        self._csv = csv
        self._note = note
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._goal: np.ndarray | None = None  # where the handle is, while the target glides there
        self._held = False  # the handle is under a hand, and not to be written to
        self._replay_start: float | None = None
        self._shown: State | None = None
        self._stale = True  # the panel shows an older update
        self._panel_time = self._slid_time = -1.0
        self._rate_time, self._rate_updates, self._rate = time.monotonic(), 0, 0.0
        robot = session.solver.robot
        self._units = np.array([1e3 if kind == "prismatic" else 180.0 / np.pi for kind in robot.kinds])
        self._unit_names = ["mm" if kind == "prismatic" else "deg" for kind in robot.kinds]

        self.server = viser.ViserServer(host=host, port=port, verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        # A page could ask for a public tunnel to this server, which is meant for those who reach `host` only.
        self.server.request_share_url = lambda verbose=True: None  # type: ignore[method-assign]
        self._build_scene(bodies)
        self._build_panel(playback)
        self.reach_layer = None if reach_map is None else ReachLayer(self.server, reach_map)
        self._show(session.state)

    def run(self) -> None:
        """Update until `stop`: at once when something was moved, and as long as the arm or the target is under way."""
        due = time.monotonic()
        while not self._stop.is_set():
            waits = None if not self.busy and not self._stale else max(due - time.monotonic(), 0)
            try:
                act = self._inbox.get(timeout=waits)
                act()
                while True:  # everything that came meanwhile belongs to one update
                    self._inbox.get_nowait()()
            except queue.Empty:
                pass
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            due = time.monotonic() + 1.0 / _UPDATES_HZ
            self._advance()

    def stop(self) -> None:
        """End `run` and the server."""
        self._stop.set()
        self._inbox.put(lambda: None)
        self.server.stop()

    @property
    def busy(self) -> bool:
        """Whether a path, a replay, the target or the arm is under way."""
        plays = self._player is not None and self._player.playing
        return plays or self._replay_start is not None or self._goal is not None or self.session.moving

    def call(self, act: Callable[[], None]) -> None:
        """Have `run` do something with the session between two updates."""
        self._inbox.put(act)

    def _advance(self) -> None:
        session = self.session
        if self._player is not None and self._player.playing:
            self._player.advance()
        elif self._replay_start is not None:
            state = session.recorded_at(time.monotonic() - self._replay_start)
            session.show(state)
            if state is session.recorded[-1]:
                self._replay_start = None
        elif self._goal is not None:
            target, goal = _se3(session.target), _se3(self._goal)
            way = (target.inverse() @ goal).log()
            if np.abs(way).max() < _ARRIVED:
                session.set_target(self._goal)
                self._goal = None
            else:
                session.set_target((target @ tf.SE3.exp(_GLIDE * way)).wxyz_xyz[[4, 5, 6, 0, 1, 2, 3]])
        elif session.moving:
            session.step()
        self._show(session.state)

    def _show(self, state: State) -> None:
        new = state is not self._shown
        self._shown = state
        with self.server.atomic():
            if new:
                self.updates += 1
                self._stale = True
                self._place(state)
            now = time.monotonic()
            if self._stale and now - self._panel_time > 1.0 / _PANEL_HZ:
                self._stale = False
                self._panel_time = now
                self._show_panel(state, now)

    # The scene ------------------------------------------------------------------------------------------------------

    def _build_scene(self, bodies: Sequence[Body]) -> None:
        server, size = self.server, reach(self.session.solver.robot)
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        scene = server.scene
        scene.set_up_direction("+z")
        # Without a GPU the browser shades every pixel on the CPU: no environment map, no shadows, and lines for viser's
        # grid, which is a shader over all of the ground (docs/how-to/viewer.md has the cost).
        scene.configure_environment_map(None)
        scene.configure_default_lights(False)
        scene.add_light_hemisphere("/lights/sky", ground_color=(165, 165, 175), intensity=2.8)
        scene.add_light_directional("/lights/sun", intensity=1.6, position=(-1.0, -2.0, 3.0))
        scene.world_axes.visible = False
        scene.add_line_segments("/grid", *ground_grid(size), thickness=1.0, thickness_units="screen")
        server.initial_camera.position = tuple(size * np.array([1.08, -1.35, 0.95]))
        server.initial_camera.look_at = tuple(size * np.array([0.32, 0.14, 0.35]))
        server.initial_camera.fov = np.radians(42.0)

        flat: dict[str, Any] = {"cast_shadow": False, "receive_shadow": False}
        self._moving = [body for body in bodies if body.frame > 0]
        self._own_colors = any(body.color is not None for body in bodies)
        for index, body in enumerate(body for body in bodies if body.frame == 0):
            color = body.color or _shaded(_BASE, body.shade)
            scene.add_mesh_simple(f"/base/{index}", body.mesh.vertices, body.mesh.faces, color=color, **flat)
        # What moves with a frame hangs from one node of the scene, which alone is moved.
        moved = sorted({body.frame for body in self._moving})
        self._solution = {frame: scene.add_frame(f"/solution/{frame}", show_axes=False) for frame in moved}
        self._one_step = {
            frame: scene.add_frame(f"/one_step/{frame}", show_axes=False, visible=False) for frame in moved
        }
        self._colored = [
            scene.add_mesh_simple(f"/solution/{b.frame}/{i}", b.mesh.vertices, b.mesh.faces, color=SOLUTION, **flat)
            for i, b in enumerate(self._moving)
        ]
        for i, b in enumerate(self._moving if self.session.has_network else ()):
            name = f"/one_step/{b.frame}/{i}"
            scene.add_mesh_simple(name, shrunk(b), b.mesh.faces, color=ONE_STEP, opacity=0.5, **flat)
        # Lines, because instanced meshes cost ten times their time without a GPU; pale, because lines are opaque.
        self._ghosts = scene.add_line_segments(
            "/ghosts", np.zeros((1, 2, 3)), GHOST, thickness=5.0, thickness_units="screen", visible=False
        )
        self._solution_color: tuple[int, int, int] | None = None
        self.obstacles = Obstacles(server, self.session, lambda pose: self.call(lambda: self.drag_shape(pose)))
        self.handle = scene.add_transform_controls("/target", scale=0.16 * size, line_width=3.0, depth_test=False)

        # Callbacks are coroutines: viser runs them in order, and plain functions in threads.
        @self.handle.on_update
        async def _(event: viser.TransformControlsEvent) -> None:
            pose = np.concatenate([event.target.position, event.target.wxyz])
            phase = event.phase
            self.call(lambda: self.drag(pose) if phase == "update" else self._hold(phase == "start"))

    def choose_shape(self, name: str) -> None:
        """Put the handle on a shape of the world, or on none; `call` this from other threads."""
        self.obstacles.choose(name)

    def drag_shape(self, pose: np.ndarray) -> None:
        """Move the chosen shape to a pose [7], as when its handle is dragged; `call` this from other threads."""
        self._replay_start = None
        self.obstacles.drag(pose)

    def _place(self, state: State) -> None:
        """Move everything in the scene to an update's joints."""
        rows = [state.q[None], state.ghosts]
        if state.one_step is not None:
            rows.append(state.one_step.q[None])
        poses = frames(self.session.solver.robot, np.concatenate(rows))
        wxyz, position = tf.SO3.from_matrix(poses[..., :3, :3]).wxyz, poses[..., :3, 3]
        under_way = state.result.status in (Status.SOLVED, Status.JUMP_BOUND)
        held_back = state.result.status is Status.IN_COLLISION  # while tracking, before the margin
        color = SOLUTION if (under_way or held_back) and not state.collide[0] else UNSOLVED
        for frame, node in self._solution.items():
            node.wxyz, node.position = wxyz[0, frame], position[0, frame]
        for frame, node in self._one_step.items():
            apart = np.abs(poses[-1, frame] - poses[0, frame]).max() > _APART
            node.visible = state.one_step is not None and bool(apart)
            if node.visible:
                node.wxyz, node.position = wxyz[-1, frame], position[-1, frame]
        if color != self._solution_color:
            for body, mesh in zip(self._moving, self._colored, strict=True):
                own = body.color if color == SOLUTION else None
                mesh.color = own or _shaded(color, body.shade)
        self._solution_color = color
        origins = position[1 : 1 + len(state.ghosts)]
        self._ghosts.visible = len(origins) > 0
        if len(origins):
            self._ghosts.points = np.stack([origins[:, :-1], origins[:, 1:]], axis=2).reshape(-1, 2, 3)
            colors = np.where(state.collide[1:, None], COLLIDING_GHOST, GHOST).astype(np.uint8)
            lines = origins.shape[1] - 1
            self._ghosts.colors = np.broadcast_to(colors[:, None, None], (len(colors), lines, 2, 3)).reshape(-1, 2, 3)
        self.obstacles.place(state, wxyz[0], position[0])
        if self._goal is None and not self._held:
            self.handle.position, self.handle.wxyz = state.target[:3], state.target[3:]

    def _hold(self, held: bool) -> None:
        self._held = held

    def drag(self, pose: np.ndarray) -> None:
        """Let the target glide to a pose [7], as when the handle is dragged; `call` this from other threads."""
        self._take_over(lambda: None)
        self._goal = pose

    # The panel ------------------------------------------------------------------------------------------------------

    def _build_panel(self, playback: Playback | None) -> None:
        session, gui = self.session, self.server.gui
        robot = session.solver.robot
        gui.set_panel_label(f"mfik: {robot.name}")
        self._numbers = gui.add_html("")
        modes = [mode.value for mode in Mode if mode is not Mode.NETWORK or session.has_network]
        mode = gui.add_dropdown(
            "mode",
            modes,
            hint="any seed: from the joints shown, then others, so it may jump; network first: the network's answer "
            "refined; tracking: no joint moves further than the jump bound an update",
        )
        bound = gui.add_slider(
            "jump bound", 0.002, 0.2, 0.002, session.max_step, hint="tracking: largest step of a joint, rad or m"
        )
        ghosts = gui.add_slider("ghosts", 0, _GHOSTS, 1, session.num_ghosts, hint="other solutions shown")
        one_step = gui.add_checkbox("one step", session.has_network, disabled=not session.has_network)
        targets = gui.add_button_group("target", ("home", "random"))
        self._build_collision_panel()
        self._player: Player | None = None
        if playback is not None:
            act = self._call_in_place_of_all
            self._player = Player(self.server, session, playback, self._units, self._unit_names, act)
        with gui.add_folder("Trajectory"):
            record = gui.add_checkbox("record", False)
            actions = ("replay", "save CSV") if self._csv is None else ("replay", "save CSV", "write CSV")
            hint = None if self._csv is None else f"write: {self._csv}, on the machine that runs the viewer"
            trajectory = gui.add_button_group("recording", actions, hint=hint)
            self._recorded = gui.add_markdown("")
        with gui.add_folder("Joints"):
            self._sliders = []
            for name, unit, low, high, value in zip(
                robot.joint_names,
                self._unit_names,
                robot.lower * self._units,
                robot.upper * self._units,
                session.q * self._units,
                strict=True,
            ):
                slider = gui.add_slider(f"{name} [{unit}]", float(low), float(high), 0.1, float(value))
                self._sliders.append(slider)
                slider.on_update(self._on_slider)

        on_change = self._on_change
        on_change(mode, lambda value: setattr(session, "mode", value))
        on_change(bound, lambda value: setattr(session, "max_step", value))
        on_change(ghosts, lambda value: setattr(session, "num_ghosts", value))
        on_change(one_step, lambda value: setattr(session, "show_one_step", value))
        on_change(record, session.record)
        self._record = record

        @targets.on_click
        async def _(event: viser.GuiEvent) -> None:
            act = session.home if event.target.value == "home" else session.random_target
            self.call(lambda: self._take_over(act))

        @trajectory.on_click
        async def _(event: viser.GuiEvent) -> None:
            action, client = event.target.value, event.client
            self.call(lambda: self._trajectory(action, client))

    def _on_change(self, handle: Any, act: Callable[[Any], None]) -> None:
        """Hand a value that someone set in the browser to `run`, which then solves again."""

        def update() -> None:
            act(handle.value)
            if self._replay_start is None:
                self.session.update()

        @handle.on_update
        async def _(event: viser.GuiEvent) -> None:
            self.call(update)

    def _build_collision_panel(self) -> None:
        """Add what only a robot with spheres can do."""
        session, gui = self.session, self.server.gui
        if not session.has_body:
            return
        with gui.add_folder("Collision"):
            keep_clear = gui.add_checkbox(
                "keep clear", session.keep_clear, hint="answers keep the margin to the world, and links to each other"
            )
            margin = gui.add_slider("margin [mm]", 0.0, 100.0, 1.0, 1e3 * session.margin, hint="kept to the world")
            spheres = gui.add_checkbox("spheres", False, hint="what stands for the robot's links")
            self._on_change(keep_clear, lambda value: setattr(session, "keep_clear", value))
            self._on_change(margin, lambda value: setattr(session, "margin", 1e-3 * value))
            if session.world.names:
                move = gui.add_dropdown("move", (NO_SHAPE, *session.world.names), hint="shape that gets a handle")

                @move.on_update
                async def _(event: viser.GuiEvent) -> None:
                    self.call(lambda: self.choose_shape(move.value))

        @spheres.on_update
        async def _(event: viser.GuiEvent) -> None:
            self.obstacles.show_spheres(spheres.value)

    async def _on_slider(self, event: viser.GuiEvent) -> None:
        if event.client is None:  # written by _show_panel
            return
        self._slid_time = time.monotonic()
        index, value = self._sliders.index(event.target), event.target.value

        def act() -> None:
            q = self.session.q.copy()
            q[index] = value / self._units[index]
            self.session.set_joints(q)

        self.call(lambda: self._take_over(act))

    def _take_over(self, act: Callable[[], object]) -> None:
        """Do something to the session in place of what is under way."""
        self._replay_start = self._goal = None
        if self._player is not None:
            self._player.stop()
        act()

    def _call_in_place_of_all(self, act: Callable[[], object]) -> None:
        self.call(lambda: self._take_over(act))

    def _trajectory(self, action: str, client: viser.ClientHandle | None) -> None:
        session = self.session
        if not session.recorded:
            return
        if action == "replay":
            self._record.value = False  # type: ignore[misc]
            session.record(False)
            self._take_over(lambda: None)
            self._replay_start = time.monotonic()
        elif action == "save CSV":
            if client is not None:
                name = f"{session.solver.robot.name}.csv"
                client.send_file_download(name, session.csv().encode(), save_immediately=True)
        elif self._csv is not None:
            self._csv.write_text(session.csv())

    def _show_panel(self, state: State, now: float) -> None:
        if now - self._rate_time > 1.0:
            self._rate = (self.updates - self._rate_updates) / (now - self._rate_time)
            self._rate_time, self._rate_updates = now, self.updates
        self._numbers.content = numbers_html(
            self.session, state, self._units, self._unit_names, self._rate, self._note, self._own_colors
        )
        if self._player is not None:
            self._player.show(state)
        recorded = self.session.recorded
        span = recorded[-1].time_s - recorded[0].time_s if recorded else 0.0
        self._recorded.content = f"{len(recorded)} updates, {span:.1f} s"
        if now - self._slid_time > _HANDS_OFF_S:
            for slider, value in zip(self._sliders, state.q * self._units, strict=True):
                slider.value = float(np.clip(round(value, 1), slider.min, slider.max))  # type: ignore[misc]


def _shaded(color: tuple[int, int, int], shade: float) -> tuple[int, int, int]:
    red, green, blue = (round(shade * channel) for channel in color)
    return red, green, blue


def _se3(pose: np.ndarray) -> tf.SE3:
    return tf.SE3(pose[[3, 4, 5, 6, 0, 1, 2]])
