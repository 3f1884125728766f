"""The robot's spheres and the shapes of the world in the scene, one of which has a handle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import viser

from mfik.view.bodies import reach, shape_mesh, sphere_bodies
from mfik.view.session import Session, State

NO_SHAPE = "none"
_SPHERES, _SHAPE = (90, 100, 120), (150, 130, 100)


class Obstacles:
    """The robot's spheres, hidden at first, and the shapes of a session's world.

    Args:
        server: Of the viewer.
        session: What is shown.
        drag: Called with the pose [7] that the handle of the chosen shape is dragged to.
    """

    def __init__(self, server: viser.ViserServer, session: Session, drag: Callable[[np.ndarray], None]) -> None:
        self._session, scene, robot = session, server.scene, session.solver.robot
        flat: dict[str, Any] = {"cast_shadow": False, "receive_shadow": False}
        self._bodies = sphere_bodies(robot)
        self._spheres = [
            scene.add_mesh_simple(
                f"/spheres/{i}", b.mesh.vertices, b.mesh.faces, color=_SPHERES, opacity=0.45, visible=False, **flat
            )
            for i, b in enumerate(self._bodies)
        ]
        self._shapes: list[Any] = []
        for index, shape in enumerate(session.world.shapes):
            mesh = shape_mesh(shape, 4.0 * reach(robot))
            self._shapes.append(
                scene.add_mesh_simple(
                    f"/world/{index}", mesh.vertices, mesh.faces, color=_SHAPE, opacity=0.75, side="double", **flat
                )
            )
        self.handle = scene.add_transform_controls(
            "/shape", scale=0.12 * reach(robot), line_width=3.0, depth_test=False, visible=False
        )
        self._held: str | None = None  # the shape that the handle moves

        @self.handle.on_update
        async def _(event: viser.TransformControlsEvent) -> None:
            if event.phase == "update":
                drag(np.concatenate([event.target.position, event.target.wxyz]))

    def choose(self, name: str) -> None:
        """Put the handle on a shape of the world, or on none."""
        self._held = None if name == NO_SHAPE else name
        self.handle.visible = self._held is not None
        if self._held is not None:
            pose = np.asarray(self._session.world.shapes[self._session.world.names.index(name)].pose)
            self.handle.position, self.handle.wxyz = pose[:3], pose[3:]

    def drag(self, pose: np.ndarray) -> None:
        """Move the chosen shape to a pose [7]."""
        if self._held is not None:
            self._session.move_shape(self._held, pose)

    def show_spheres(self, visible: bool) -> None:
        """Show the robot's spheres, or hide them."""
        for handle in self._spheres:
            handle.visible = visible

    def place(self, state: State, wxyz: np.ndarray, position: np.ndarray) -> None:
        """Move all to an update; the robot's frames are at wxyz [F, 4] and position [F, 3]."""
        for body, spheres in zip(self._bodies, self._spheres, strict=True):
            spheres.wxyz, spheres.position = wxyz[body.frame], position[body.frame]
        for shape, pose in zip(self._shapes, state.shape_poses, strict=True):
            shape.position, shape.wxyz = pose[:3], pose[3:]
