"""solve_batch for throughput: what it answers is judged by Pinocchio, what it promises by other batches."""

import time

import numpy as np
import pytest
from judge import Judge

from mfik.eval import make_targets
from mfik.robots import load_robot
from mfik.solve import Solver, Status


@pytest.fixture(scope="module", params=["panda", "ur10"])
def solver(request):
    return Solver.pretrained(request.param)


@pytest.mark.parametrize("kind", ["global", "local", "near_limits", "near_singular"])
def test_every_reachable_pose_is_solved(solver, kind):
    targets = make_targets(solver.robot, 2000, kind=kind, seed=17)
    out = solver.solve_batch(targets.pose, targets.q_ref, throughput=True)
    reference = solver.solve_batch(targets.pose, targets.q_ref)
    assert (out.status == Status.SOLVED).sum() >= (reference.status == Status.SOLVED).sum()
    judge = Judge(solver.robot)
    rows = zip(out.q, out.status, targets.pose, strict=True)
    assert all(judge.solves(q, pose) for q, status, pose in rows if status == Status.SOLVED)


@pytest.mark.parametrize("seed", ["reference", "network", "midpoint", "azimuth"])
def test_rows_depend_neither_on_each_other_nor_on_threads(solver, seed):
    targets = make_targets(solver.robot, 1200, seed=18)
    out = solver.solve_batch(targets.pose, targets.q_ref, throughput=True, seed=seed)
    order = np.random.default_rng(0).permutation(len(targets.pose))
    other = solver.solve_batch(targets.pose[order], targets.q_ref[order], throughput=True, seed=seed, threads=3)
    assert (out.q[order] == other.q).all() and (out.status[order] == other.status).all()
    assert (out.attempts[order] == other.attempts).all() and (out.iterations[order] == other.iterations).all()


def test_a_batch_of_any_size_is_answered():
    solver = Solver.from_robot(load_robot("panda"))
    targets = make_targets(solver.robot, 300, seed=19)
    whole = solver.solve_batch(targets.pose, targets.q_ref, throughput=True)
    for n in (0, 1, 2, 7, 8, 9, 255, 256, 257):
        part = solver.solve_batch(targets.pose[:n], targets.q_ref[:n], throughput=True)
        assert part.q.shape == (n, 7) and (part.q == whole.q[:n]).all()
    assert (whole.time_us > 0).all()
    assert solver.solve_batch(targets.pose, targets.q_ref, throughput=True, time_each=False).time_us is None


@pytest.mark.parametrize("seed", ["reference", "network"])
def test_the_times_of_rows_are_what_the_call_took(seed):
    """The evaluation of the network included."""
    solver = Solver.pretrained("panda")
    targets = make_targets(solver.robot, 3000)
    begin = time.thread_time()
    out = solver.solve_batch(targets.pose, targets.q_ref, throughput=True, seed=seed)
    took_us = 1e6 * (time.thread_time() - begin)
    assert out.time_us.sum() > 0.7 * took_us
