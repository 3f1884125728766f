"""The path that the viewer plays, without a browser."""

import numpy as np
import pytest
from cmake_project import ROOT

from mfik.collision import Box, World
from mfik.errors import ArgumentError
from mfik.robots import load_robot
from mfik.solve import Solver
from mfik.view import Playback

HOME = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])


@pytest.fixture(scope="module")
def swing(panda):
    """A turn of the first joint, in 1.2 s."""
    q = np.repeat(HOME[None], 1201, axis=0)
    q[:, 0] = np.linspace(-1, 1, 1201)
    return Playback(Solver.from_robot(panda), q, 5.0 + 1e-3 * np.arange(1201))


def test_each_row_has_its_time(swing):
    rows = [swing.row_at(elapsed) for elapsed in (-1.0, 0.0, 0.0105, 1.1999, 1.2001, 99.0)]
    assert rows == [0, 0, 10, 1199, 1200, 1200]
    untimed = Playback(swing._solver, swing.q[:10])
    assert [untimed.row_at(elapsed) for elapsed in (0.049, 0.051, 9.0)] == [0, 1, 9]


def test_plots_show_at_most_500_rows_with_both_ends(swing):
    assert len(swing.drawn) == 500 and swing.drawn[0] == 0 and swing.drawn[-1] == 1200
    np.testing.assert_array_equal(swing.tool, swing._solver.robot.fk(swing.q[swing.drawn]))


def test_the_clearance_is_the_solvers_and_follows_the_world(swing):
    world = World([Box([0.1, 0.1, 1.5], [0.35, 0.2, 0.5, 1, 0, 0, 0], "post")])
    from_world, of_links = swing.clearance(world)
    for i in (0, 250, 499):
        q = swing.q[swing.drawn[i]]
        assert from_world[i] == swing._solver.clearance(q, world, self_collision=False).distance
        assert of_links[i] == swing._solver.clearance(q).distance
    assert from_world.min() < 0 < from_world.max() and of_links.min() > 0
    world.set_pose("post", [3, 0, 0, 1, 0, 0, 0])
    assert swing.clearance(world)[0].min() > 1


def test_endless_joints_are_wrapped_for_the_eye_only():
    robot = load_robot(ROOT / "examples" / "gantry.urdf", "world", "flange")
    q = np.repeat(robot.clamp(np.zeros(robot.dof))[None], 50, axis=0)
    endless = robot.kinds.index("continuous")
    q[:, endless] = np.linspace(-9, 9, 50)
    shown = Playback(Solver.from_robot(robot), q)
    assert robot.within_limits(shown.q).all()
    np.testing.assert_allclose(robot.fk(shown.q), robot.fk(q), atol=1e-12)
    np.testing.assert_array_equal(shown.path, q)


@pytest.mark.parametrize(
    ("q", "times", "message"),
    [
        (HOME, None, r"q: expected \[N, 7\], got \[7\]"),
        (HOME[None, :6], None, r"q: expected \[N, 7\], got \[1, 6\]"),
        (np.empty((0, 7)), None, "q: expected"),
        (np.full((1, 7), np.nan), None, "finite"),
        (np.stack([HOME, HOME]), [0.0, 0.0], "times: expected them to increase"),
        (np.stack([HOME, HOME]), [0.0], "times: expected one for each of 2"),
    ],
)
def test_what_cannot_be_played_is_named(panda, q, times, message):
    with pytest.raises(ArgumentError, match=message):
        Playback(Solver.from_robot(panda), q, times)
