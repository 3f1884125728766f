"""Interactive viewer in a browser: a target to drag, the solution live (docs/how-to/viewer.md)."""

from importlib.util import find_spec

if missing := [name for name in ("trimesh", "viser") if find_spec(name) is None]:
    raise ImportError(f"the viewer needs {', '.join(missing)}; install what it needs with: pip install 'mfik[viz]'")

from mfik.view.bodies import Body, chain_bodies, frames, mesh_bodies, shape_mesh, sphere_bodies
from mfik.view.choice import choose_solver
from mfik.view.playback import Playback
from mfik.view.session import Mode, Session, State
from mfik.view.visuals import draw_robot, visual_bodies

# mfik.view.app, which needs viser, is imported by who shows the viewer.
__all__ = [
    "Body",
    "Mode",
    "Playback",
    "Session",
    "State",
    "chain_bodies",
    "choose_solver",
    "draw_robot",
    "frames",
    "mesh_bodies",
    "shape_mesh",
    "sphere_bodies",
    "visual_bodies",
]
