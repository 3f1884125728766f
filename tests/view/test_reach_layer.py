"""A map of reach in the viewer, without a browser."""

import numpy as np
import pytest

from mfik.errors import ArgumentError
from mfik.reach import ReachSettings, map_reach
from mfik.solve import Solver
from mfik.view import Session, chain_bodies
from mfik.view.app import Viewer
from mfik.view.reach_layer import reach_points


@pytest.fixture(scope="module")
def found(panda):
    return map_reach(panda, ReachSettings(resolution=0.2, orientations=6))


def test_points_are_the_positions_that_are_reached(found):
    points, colors = reach_points(found, "share", 0.0, -10.0)
    ix, iy, iz = np.nonzero(found.share > 0)
    np.testing.assert_allclose(points, np.stack([found.x[ix], found.y[iy], found.z[iz]], axis=1), rtol=1e-6)
    share = found.share[ix, iy, iz]
    assert (colors[share == 1.0] == (253, 231, 37)).all() and (share == 1.0).any() and (share < 0.5).any()
    assert (colors[share < 0.5, 0] < 69).all() and (colors[share < 0.5, 1] < 146).all()
    points, _ = reach_points(found, "share", 0.9, 0.2)
    assert len(points) == (found.share[:, found.y > 0.1] >= 0.9).sum() > 0 and points[:, 1].min() >= 0.19
    points, colors = reach_points(found, "manipulability", 0.0, -10.0)
    best = found.manipulability_best[ix, iy, iz]
    assert (
        tuple(colors[best.argmax()]) == (253, 231, 37) and (np.diff(colors[np.argsort(best), 1].astype(int)) >= 0).all()
    )


def test_the_panel_chooses_what_is_shown(found, panda, ur10):
    session = Session(Solver.from_robot(panda))
    viewer = Viewer(session, chain_bodies(panda), port=8920, reach_map=found)
    try:
        layer = viewer.reach_layer
        assert len(layer.points.points) == len(reach_points(found, "share", 0.0, 0.0)[0])
        layer.value.value, layer.least.value, layer.cut.value, layer.visible.value = "manipulability", 0.5, -1.0, False
        layer.update()
        points, colors = reach_points(found, "manipulability", 0.5, -1.0)
        np.testing.assert_allclose(layer.points.points, points, atol=1e-3)  # viser sends half precision
        np.testing.assert_array_equal(layer.points.colors, colors)
        assert not layer.points.visible
    finally:
        viewer.stop()
    with pytest.raises(ArgumentError, match="reach: expected a map of 'ur10', base_link -> tool0, got one of 'panda'"):
        Viewer(Session(Solver.from_robot(ur10)), chain_bodies(ur10), port=8920, reach_map=found)
