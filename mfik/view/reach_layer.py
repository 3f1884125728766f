"""A map of reach as coloured points, and what the panel has to choose of them."""

from __future__ import annotations

import numpy as np
import viser

from mfik.errors import ArgumentError
from mfik.reach import ReachMap
from mfik.robots import Robot

_POINT = 0.25  # size of a point, by the resolution
# Anchors of the map of colours "viridis" (Smith and van der Walt, 2015), from the least value to the largest.
_COLORS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)
VALUES = ("share", "manipulability")


def reach_points(found: ReachMap, value: str, least: float, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions that are shown, and their colours.

    Args:
        found: The map.
        value: What the colours show, one of VALUES: the share of the orientations that are reached, of 0 to 1, or the
            best manipulability, by the largest of the map.
        least: Smallest share of a position that is shown; none is where nothing is reached.
        cut: Smallest y that is shown [m].
    Returns:
        Positions in the base frame [m], [M, 3] float32, and red, green and blue, [M, 3] uint8.
    """
    share = found.share
    shown = (share > 0.0) & (share >= least) & (found.y >= cut - 1e-9)[:, None]
    of = share if value == "share" else found.manipulability_best / max(float(found.manipulability_best.max()), 1e-12)
    ix, iy, iz = np.nonzero(shown)
    points = np.stack([found.x[ix], found.y[iy], found.z[iz]], axis=1).astype(np.float32)
    at = np.linspace(0.0, 1.0, len(_COLORS))
    colors = np.stack([np.interp(of[shown], at, channel) for channel in _COLORS.T], axis=1)
    return points, colors.round().astype(np.uint8)


def check_robot(found: ReachMap, robot: Robot) -> None:
    """Raise ArgumentError where a map is of another robot than the one that is shown."""
    own = Robot.from_dict(found.document["robot"])
    if own.fingerprint() != robot.fingerprint():
        raise ArgumentError(
            f"reach: expected a map of '{robot.name}', {robot.base_link} -> {robot.tip_link}, got one of "
            f"'{own.name}', {own.base_link} -> {own.tip_link}; show the robot that it was made for"
        )


class ReachLayer:
    """A map of reach in the scene, with a folder of the panel.

    Args:
        server: Of the viewer.
        found: The map.
    """

    def __init__(self, server: viser.ViserServer, found: ReachMap) -> None:
        self._found, gui = found, server.gui
        with gui.add_folder("Reach"):
            self.visible = gui.add_checkbox("reach", True, hint="positions that are reached")
            self.value = gui.add_dropdown("color", VALUES, hint="share of the orientations; best manipulability")
            self.least = gui.add_slider("least share", 0.0, 1.0, 0.05, 0.0, hint="of positions that are shown")
            low, high = float(found.y[0]), max(float(found.y[-1]), float(found.y[0]) + 1e-3)
            self.cut = gui.add_slider(
                "y from [m]", low, high, 1e-3, min(max(0.0, low), high), hint="what lies before is cut off"
            )
        self.points = server.scene.add_point_cloud(
            "/reach", *self._shown(), point_size=_POINT * found.document["settings"]["resolution"], point_shape="circle"
        )

        async def update(event: viser.GuiEvent) -> None:
            self.update()

        for handle in (self.visible, self.value, self.least, self.cut):
            handle.on_update(update)

    def update(self) -> None:
        """Show what the panel asks for."""
        self.points.visible = self.visible.value
        self.points.points, self.points.colors = self._shown()

    def _shown(self) -> tuple[np.ndarray, np.ndarray]:
        return reach_points(self._found, self.value.value, self.least.value, self.cut.value)
