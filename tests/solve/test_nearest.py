"""`nearest=True` finds the solution nearest to the reference: against a judge that tries hundreds of starts."""

import numpy as np
import pytest
import torch
from judge import ROUNDING, Judge
from nearest_judge import distance, nearest_solution

from mfik.collision import Sphere, World
from mfik.errors import ArgumentError
from mfik.robots import load_robot
from mfik.solve import Options, Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)


@pytest.fixture(scope="module", params=["panda", "ur10"])
def solver(request) -> Solver:
    return Solver.from_robot(load_robot(request.param))


@pytest.fixture(scope="module")
def panda() -> Solver:
    return Solver.from_robot(load_robot("panda"))


def draw(solver: Solver, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poses within reach and references, drawn uniformly within the limits."""
    rng = np.random.default_rng(seed)
    return solver.robot.fk(solver.robot.sample(n, rng)), solver.robot.sample(n, rng)


def excess(solver: Solver, poses: np.ndarray, q_ref: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how much farther than the nearest solution each answer is, as a share."""
    robot, rng, judge = solver.robot, np.random.default_rng(1), Judge(solver.robot)
    answers = solver.solve_batch(poses, q_ref, nearest=True, joint_weights=weights)
    assert all(judge.solves(q, pose) for q, pose in zip(answers.q, poses, strict=True))
    starts = 400 if robot.dof > 6 else 800  # eight branches, most starts beyond the limits of the nearest one
    nearest = [nearest_solution(robot, pose, ref, rng, weights, starts) for pose, ref in zip(poses, q_ref, strict=True)]
    return distance(answers.q, q_ref, weights) / distance(np.array(nearest), q_ref, weights) - 1


@pytest.mark.slow
def test_the_nearest_is_within_one_percent_in_the_mean(solver):
    above = excess(solver, *draw(solver, 60, 77), np.ones(solver.dof))
    assert np.maximum(above, 0).mean() <= 0.01 and np.quantile(above, 0.95) <= 0.05


@pytest.mark.slow
def test_the_nearest_counts_joints_by_their_weights(panda):
    weights = np.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.3, 0.1])
    poses, q_ref = draw(panda, 40, 78)
    above = excess(panda, poses, q_ref, weights)
    assert np.maximum(above, 0).mean() <= 0.01 and np.quantile(above, 0.95) <= 0.05
    plain = panda.solve_batch(poses, q_ref, nearest=True).q
    weighted = panda.solve_batch(poses, q_ref, nearest=True, joint_weights=weights).q
    ratio = distance(weighted, q_ref, weights) / distance(plain, q_ref, weights)
    assert (ratio < 1 + 1e-3).mean() >= 0.95 and np.median(ratio) < 0.95
    scaled = panda.solve_batch(poses, q_ref, nearest=True, joint_weights=1e6 * weights).q
    np.testing.assert_allclose(scaled, weighted, atol=1e-6)  # only the ratios matter


def test_the_nearest_lies_at_the_foot_of_the_null_space(panda):
    """Nothing along the null space is nearer: the part of the way to q_ref in it vanishes, or leads out of limits."""
    robot, (poses, q_ref) = panda.robot, draw(panda, 300, 79)
    answers = panda.solve_batch(poses, q_ref, nearest=True)
    assert (answers.status == Status.SOLVED).all()
    way = q_ref - answers.q
    null = np.linalg.svd(robot.jacobian(answers.q))[2][:, 6]
    inside = ((answers.q > robot.lower + 1e-3) & (answers.q < robot.upper - 1e-3)).all(1)
    left = np.abs((null * way).sum(1)) / np.linalg.norm(way, axis=1)
    assert inside.sum() > 100 and np.quantile(left[inside], 0.95) < 0.05


def test_hardly_a_solution_found_is_nearer_than_the_nearest(solver):
    """Of all solutions on the turns that the limits allow: the UR10's joints turn twice."""
    ratios = []
    for pose, q_ref in zip(*draw(solver, 100, 30), strict=True):
        nearest, found = solver.solve(pose, q_ref, nearest=True), solver.solve_all(pose, 32, q_ref)
        distances = np.linalg.norm(found.q - q_ref, axis=1)
        assert distances[0] <= distances.min() + ROUNDING
        ratios.append(np.linalg.norm(nearest.q - q_ref) / distances[0])
    assert (np.array(ratios) > 1.01).sum() <= 3  # of 100; 8 of 1,000 poses of both
    assert np.median(ratios) <= 1 + 1e-6


def test_a_configuration_that_solves_the_pose_is_its_own_nearest(solver):
    q = solver.robot.sample(50, np.random.default_rng(80))
    np.testing.assert_array_equal(solver.solve_batch(solver.robot.fk(q), q, nearest=True).q, q)


def test_the_nearest_keeps_locked_joints_and_slack(panda):
    robot, (poses, q_ref) = panda.robot, draw(panda, 100, 81)
    free = panda.solve_batch(poses, q_ref, nearest=True, slack=[0, 0, 0, 0, 0, np.inf])
    bound = panda.solve_batch(poses, q_ref, nearest=True)
    assert (free.status == Status.SOLVED).all()
    lengths = [np.linalg.norm(out.q - q_ref, axis=1) for out in (free, bound)]
    assert (lengths[0] <= 1.01 * lengths[1]).mean() >= 0.98 and np.median(lengths[0] / lengths[1]) < 0.95
    for q, ref in zip(robot.sample(50, np.random.default_rng(82)), q_ref, strict=False):
        ref = np.where(np.arange(7) == 2, q, ref)
        result = panda.solve(robot.fk(q), ref, nearest=True, locked=[2])
        assert result.status is Status.SOLVED and result.q[2] == ref[2]


def test_the_nearest_keeps_clear_of_obstacles(panda):
    world = World([Sphere(0.25, pose=[0.35, 0.2, 0.5, 1, 0, 0, 0])])
    poses, q_ref = draw(panda, 100, 83)
    near = panda.solve_batch(poses, q_ref, nearest=True, world=world, margin=0.01)
    any_solution = panda.solve_batch(poses, q_ref, world=world, margin=0.01)
    solved = near.status == Status.SOLVED
    assert (solved == (any_solution.status == Status.SOLVED)).mean() >= 0.98 and solved.sum() > 20
    assert panda.is_free(near.q[solved], world, margin=0.01 - 1e-9).all()
    both = solved & (any_solution.status == Status.SOLVED)
    lengths = [np.linalg.norm(out.q - q_ref, axis=1)[both] for out in (near, any_solution)]
    assert (lengths[0] <= lengths[1] + ROUNDING).mean() >= 0.98 and np.median(lengths[0] / lengths[1]) < 0.95


def test_cuda_refuses_joint_weights_by_name(panda):
    with pytest.raises(ArgumentError, match="joint_weights: solving on CUDA takes"):
        panda._solve_tensors(torch.zeros(1, 7), torch.zeros(1, 7), Options(joint_weights=np.ones(7)))
