"""A robot solves alike in whatever unit of length it is described."""

import numpy as np
import pytest

from mfik.robots import Robot, load_robot
from mfik.solve import Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

N = 2000


def scaled(robot: Robot, factor: float) -> Robot:
    """Return the robot with all its lengths multiplied."""
    document = robot.to_dict()
    for transform in (document["tool"], *(joint["origin"] for joint in document["joints"])):
        transform[3::4] = [factor * x for x in transform[3::4]]
    for joint in document["joints"]:
        if joint["kind"] == "prismatic":
            joint["lower"], joint["upper"] = factor * joint["lower"], factor * joint["upper"]
    return Robot.from_dict(document)


def on_rail(robot: Robot, length: float) -> Robot:
    """Return the robot on a rail along the base's x axis."""
    document = robot.to_dict()
    along_x = [0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    back = [0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0]
    first = np.vstack([np.reshape(document["joints"][0]["origin"], (3, 4)), [0, 0, 0, 1]])
    document["joints"][0]["origin"] = (np.reshape(back, (3, 4)) @ first).ravel().tolist()
    rail = {
        "name": "rail",
        "kind": "prismatic",
        "lower": 0.0,
        "upper": float(length),
        "origin": list(map(float, along_x)),
    }
    document["joints"].insert(0, rail)
    return Robot.from_dict(document)


def solved(robot: Robot, tol_pos: float, **options) -> np.ndarray:
    rng = np.random.default_rng(0)
    pose = robot.fk(robot.sample(N, rng))
    out = Solver.from_robot(robot).solve_batch(pose, robot.sample(N, rng), tol_pos=tol_pos, **options)
    reached = robot.fk(out.q)
    inside = np.linalg.norm(reached[:, :3] - pose[:, :3], axis=1) <= 1.001 * tol_pos
    assert ((out.status == Status.SOLVED) <= (inside & robot.within_limits(out.q))).all()
    return out.status == Status.SOLVED


@pytest.mark.parametrize("factor", [1e-4, 1e-3, 1.0, 1e3, 1e4])
@pytest.mark.parametrize("throughput", [False, True])
def test_a_6r_arm_is_solved_in_any_unit(factor, throughput):
    assert solved(scaled(load_robot("ur10"), factor), 1e-5 * factor, throughput=throughput).mean() >= 0.999


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_rail_is_scaled_with_its_arm(factor):
    assert solved(scaled(on_rail(load_robot("ur10"), 2.0), factor), 1e-5 * factor).mean() >= 0.999


@pytest.mark.parametrize("throughput", [False, True])
def test_an_arm_on_a_long_rail_is_solved(throughput):
    assert solved(on_rail(load_robot("ur10"), 1000.0), 1e-5, throughput=throughput).mean() >= 0.999


def test_every_call_takes_and_returns_the_robots_own_unit():
    """By a power of two nothing is rounded: the same bits, but for the lengths. (One attempt: of several, the nearest
    in [rad] or [m] is kept, and that depends on the unit.)
    """
    factor, rng = 2.0**10, np.random.default_rng(1)
    robot = on_rail(load_robot("ur10"), 2.0)
    large = scaled(robot, factor)
    unit = np.array([factor if kind == "prismatic" else 1.0 for kind in robot.kinds])
    position = np.array([factor] * 3 + [1.0] * 4)
    tool, slack = np.array([0.1, 0, 0.05, 1, 0, 0, 0]), np.array([0.01, 0, 0, 0, 0, 0.1])
    solver, other = Solver.from_robot(robot), Solver.from_robot(large)
    for q, q_ref in zip(robot.sample(50, rng), robot.sample(50, rng), strict=True):
        pose, preferred = robot.fk(q), robot.sample(1, rng)[0]
        for options in ({}, {"tool": tool, "slack": slack}, {"q_preferred": preferred}):
            given = {"tool": position * tool, "slack": position[[0, 1, 2, 6, 6, 6]] * slack}
            given["q_preferred"] = unit * preferred
            alike = {name: given.get(name, value) for name, value in options.items()}
            pairs = [
                (
                    solver.solve(pose, q_ref, max_attempts=1, **options),
                    other.solve(position * pose, unit * q_ref, max_attempts=1, tol_pos=1e-5 * factor, **alike),
                ),
                (
                    solver.track(pose, q, 0.01 * np.ones(7), **options),
                    other.track(position * pose, unit * q, 0.01 * unit, tol_pos=1e-5 * factor, **alike),
                ),
            ]
            for small, big in pairs:
                np.testing.assert_array_equal(big.q, unit * small.q)
                assert big.pos_error == factor * small.pos_error
                assert big.status == small.status
