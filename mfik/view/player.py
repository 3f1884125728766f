"""The panel's part that plays a path: a slider, a button, plots of joints and clearance along it, the tool's trail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import viser
from viser import uplot

from mfik.view.playback import Playback
from mfik.view.session import Session, State

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555", "#a6761d")
_TRAIL, _COLLIDES = (70, 150, 90), (205, 70, 60)
_PLOT_PX = 190


class Player:
    """Plays a path in a viewer.

    Args:
        server: Of the viewer.
        session: What is shown; touched only by what `act` is given.
        playback: The path.
        units: Of each joint in the plot for one of the path [J], 180 / pi of an angle.
        unit_names: Their names, [J].
        act: Runs something between two updates of the viewer, in place of what is under way.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        session: Session,
        playback: Playback,
        units: np.ndarray,
        unit_names: list[str],
        act: Callable[[Callable[[], object]], None],
    ) -> None:
        self._server, self._session, self._playback = server, session, playback
        self._row = self._slid = 0  # shown, and where the slider was put last
        self._start: float | None = None
        self._world: np.ndarray | None = None  # poses of the shapes that the clearance was drawn for
        self._x = playback.times[playback.drawn] if playback.timed else playback.drawn.astype(np.float64)
        self._trail = server.scene.add_line_segments(
            "/trail", np.zeros((1, 2, 3)), _TRAIL, thickness=3.0, thickness_units="screen"
        )
        gui = server.gui
        axis: dict[str, Any] = {"scales": {"x": uplot.Scale(time=False)}, "height": _PLOT_PX}
        x = uplot.Series(label="time [s]" if playback.timed else "waypoint")
        with gui.add_folder("Path"):
            self._slider = gui.add_slider("row", 0, max(len(playback.q) - 1, 1), 1, 0)
            self._button = gui.add_button("play", hint="shows the path at its times; once more ends it")
            joints = playback.path[playback.drawn] * units
            names = session.solver.robot.joint_names
            gui.add_uplot(
                (self._x, *np.ascontiguousarray(joints.T)),
                (x, *map(_series, [f"{n} [{u}]" for n, u in zip(names, unit_names, strict=True)], range(len(names)))),
                title="joints",
                **axis,
            )
            self._clearance = None
            if session.has_body:
                lines = (_series("to the world [mm]", 1), _series("of links [mm]", 0), _series("here", 6, points=True))
                nothing = np.zeros_like(self._x)
                self._clearance = gui.add_uplot(
                    (self._x, nothing, nothing, nothing), (x, *lines), title="clearance", **axis
                )
        self.go(0)

        @self._slider.on_update
        async def _(event: viser.GuiEvent) -> None:
            if event.client is not None:  # else written by `show`
                self._slid = row = int(self._slider.value)
                act(lambda: self.go(row))

        @self._button.on_click
        async def _(event: viser.GuiEvent) -> None:
            playing = self.playing
            act(self.stop if playing else self.play)

    @property
    def playing(self) -> bool:
        """Whether the path is under way."""
        return self._start is not None

    def play(self) -> None:
        """Begin at the row shown, at the first one where that is the last."""
        if self._row == len(self._playback.q) - 1:
            self._row = 0
        self._start = time.monotonic() - self._playback.times[self._row]
        self._button.label = "stop"

    def stop(self) -> None:
        """Stay where it is."""
        self._start = None
        self._button.label = "play"

    def go(self, row: int) -> None:
        """Show a row."""
        self._row = row
        self._session.set_joints(self._playback.q[row])

    def advance(self) -> None:
        """Show the row whose time it is; the last one ends the motion."""
        assert self._start is not None
        self.go(self._playback.row_at(time.monotonic() - self._start))
        if self._row == len(self._playback.q) - 1:
            self.stop()

    def show(self, state: State) -> None:
        """Bring slider, clearance and trail up to date."""
        if self._slid != self._row:
            self._slid = self._slider.value = self._row  # type: ignore[misc]
        moved = self._world is None or not np.array_equal(self._world, state.shape_poses)
        if moved:
            self._world = state.shape_poses
            self._distances = self._playback.clearance(self._session.world) if self._clearance is not None else None
            self._draw_trail()
        if self._clearance is not None and self._distances is not None:
            place = int(np.abs(self._playback.drawn - self._row).argmin())
            world, links = (1e3 * np.where(np.isfinite(row), row, np.nan) for row in self._distances)
            here = np.full(len(self._x), np.nan)
            here[place] = np.fmin(world, links)[place]
            self._clearance.data = (self._x, world, links, here)

    def _draw_trail(self) -> None:
        tool = self._playback.tool[:, :3]
        if len(tool) < 2:
            self._trail.visible = False
            return
        free = np.ones(len(tool), bool)
        if self._distances is not None:
            free = np.minimum(self._distances[0] - self._session.margin, self._distances[1]) >= 0
        colors = np.where((free[:-1] & free[1:])[:, None, None], _TRAIL, _COLLIDES).astype(np.uint8)
        self._trail.points = np.stack([tool[:-1], tool[1:]], axis=1)
        self._trail.colors = np.broadcast_to(colors, (len(tool) - 1, 2, 3))


def _series(label: str, index: int, *, points: bool = False) -> uplot.Series:
    color = _COLORS[index % len(_COLORS)]
    if points:
        return uplot.Series(label=label, stroke=color, width=0, points={"show": True, "size": 9, "fill": color})
    return uplot.Series(label=label, stroke=color, width=2)
