"""Damped least squares with an active set at the limits."""

from __future__ import annotations

import math

import pytest
import torch

from mfik.errors import ArgumentError
from mfik.kinematics import Chain, fk, jacobian, pose_error, position_error_m, rotation_error_rad
from mfik.kinematics import refine as refine_joints
from mfik.robots import load_robot

ROBOTS = {name: load_robot(name) for name in ("panda", "ur10")}


@pytest.fixture(params=ROBOTS)
def robot(request):
    return ROBOTS[request.param]


def problem(robot, n, noise=0.05, dtype=torch.float64):
    """Return starts near the solutions of reachable targets."""
    generator = torch.Generator().manual_seed(2)
    solution = robot.sample(n, generator, torch.float64)
    start = solution + noise * torch.randn(n, robot.dof, generator=generator, dtype=torch.float64)
    return start.to(dtype), robot.fk(solution).to(dtype)


def refine_row(chain, lower, upper, q, target, max_iterations, tol):
    """Refine one row, written from the algorithm's description with Python branches instead of masks."""
    limited = [kind != "continuous" for kind in chain.kinds]
    q = [min(max(x, lo), hi) if lim else x for x, lo, hi, lim in zip(q.tolist(), lower, upper, limited, strict=True)]
    converged = False
    for iteration in range(max_iterations + 1):
        position = torch.tensor(q, dtype=torch.float64)
        error = pose_error(fk(chain, position), target)
        if error[:3].norm() <= tol and error[3:].norm() <= tol:
            converged = True
            break
        if iteration == max_iterations:
            break
        jac = jacobian(chain, position)
        damping = (0.02 * float(error @ error) + 1e-8) * torch.eye(6, dtype=torch.float64)
        free, rest, q_next = list(range(chain.dof)), error.clone(), list(q)
        for _ in range(2):
            jac_free = jac[:, free]
            dq = jac_free.T @ torch.linalg.solve(jac_free @ jac_free.T + damping, rest)
            for column, joint in enumerate(free):
                q_next[joint] = q[joint] + float(dq[column])
            crossing = [j for j in free if limited[j] and not lower[j] <= q_next[j] <= upper[j]]
            for joint in crossing:
                q_next[joint] = float(min(max(q_next[joint], lower[joint]), upper[joint]))
                rest = rest - jac[:, joint] * (q_next[joint] - q[joint])
            free = [joint for joint in free if joint not in crossing]
            if not crossing:
                break
        q = q_next
    q = [x if lim else math.remainder(x, 2 * math.pi) for x, lim in zip(q, limited, strict=True)]
    return torch.tensor(q, dtype=torch.float64), converged, iteration


def test_small_noise_refines_to_a_nanometre(robot):
    q, target = problem(robot, 100)
    result = robot.refine(q, target, max_iterations=50, tol_pos=1e-9, tol_rot=1e-9)
    assert result.converged.all()
    pose = robot.fk(result.q)
    assert position_error_m(pose, target).max() <= 1e-9
    assert rotation_error_rad(pose, target).max() <= 1e-9


def test_masked_batch_equals_the_branching_algorithm_row_by_row(robot):
    q, target = problem(robot, 12, noise=0.8)
    lower, upper = robot.lower.tolist(), robot.upper.tolist()
    result = robot.refine(q, target, max_iterations=6)
    for row in range(12):
        expected, converged, iterations = refine_row(robot.chain, lower, upper, q[row], target[row], 6, 1e-5)
        torch.testing.assert_close(result.q[row], expected, atol=1e-7, rtol=0)  # rounding / damping floor
        assert (bool(result.converged[row]), int(result.iterations[row])) == (converged, iterations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_is_within_limits_from_any_start(robot, dtype):
    generator = torch.Generator().manual_seed(3)
    q = 20 * torch.randn(200, robot.dof, generator=generator, dtype=dtype)
    target = robot.fk(robot.sample(200, generator, dtype))
    result = robot.refine(q, target, max_iterations=10)
    assert result.q.dtype == dtype
    assert robot.within_limits(result.q).all()


def test_joint_that_would_cross_its_limit_lands_exactly_on_it():
    # Two sliders along x: the first stops at its limit, the second makes up for it within the same step.
    origins = torch.eye(4, dtype=torch.float64)[:3].repeat(3, 1, 1)
    chain = Chain(origins, ("prismatic", "prismatic"))
    lower, upper = torch.tensor([[-0.1, -5.0], [0.1, 5.0]], dtype=torch.float64)
    target = torch.tensor([[0, 0, 0.8, 1, 0, 0, 0]], dtype=torch.float64)
    result = refine_joints(chain, lower, upper, torch.zeros(1, 2, dtype=torch.float64), target)
    assert result.converged.all()
    assert result.q[0, 0] == 0.1
    assert float(result.q[0, 1]) == pytest.approx(0.7, abs=1e-5)


def test_joint_on_its_limit_can_leave_it(robot):
    lower, upper = robot.limits()
    solution = (lower + upper)[None] / 2 + 0.2
    solution[0, 0] = upper[0] - 0.3
    start = solution + 0.1
    start[0, 0] = upper[0]
    result = robot.refine(start, robot.fk(solution))
    assert result.converged.all()
    assert result.q[0, 0] < upper[0]


def test_converged_rows_stay_put(robot):
    q, target = problem(robot, 4)
    q = robot.clamp(q)
    target[0] = robot.fk(q[0])
    result = robot.refine(q, target)
    assert (result.q[0] == q[0]).all()
    assert result.iterations[0] == 0
    again = robot.refine(result.q, target)
    assert (again.q[result.converged] == result.q[result.converged]).all()
    assert (again.iterations[result.converged] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_equals_loop(robot, dtype):
    q, target = problem(robot, 9, noise=0.3, dtype=dtype)
    result = robot.refine(q, target, max_iterations=3)
    for row in range(9):
        single = robot.refine(q[row : row + 1], target[row : row + 1], max_iterations=3)
        # Rounding, magnified by at most 1 / (2 sqrt(damping floor)) where a row is near singular.
        torch.testing.assert_close(single.q[0], result.q[row], atol=1e4 * torch.finfo(dtype).eps, rtol=0)
        assert single.converged[0] == result.converged[row]


def test_empty_batch_gives_empty_results(robot):
    result = robot.refine(torch.zeros(0, robot.dof), torch.zeros(0, 7))
    assert (result.q.shape, result.converged.shape, result.iterations.shape) == ((0, robot.dof), (0,), (0,))
    assert (result.converged.dtype, result.iterations.dtype) == (torch.bool, torch.int64)


def test_zero_iterations_only_clamp(robot):
    q, target = problem(robot, 5, noise=5.0)
    result = robot.refine(q, target, max_iterations=0)
    assert (result.q == robot.clamp(q)).all()
    assert not result.converged.any()
    assert (result.iterations == 0).all()


def test_nan_row_leaves_the_others_alone(robot):
    q, target = problem(robot, 3)
    expected = robot.refine(q, target)
    q[1, 0] = math.nan
    result = robot.refine(q, target)
    assert not result.converged[1]
    assert result.q[1].isnan().any()
    torch.testing.assert_close(result.q[[0, 2]], expected.q[[0, 2]], atol=1e-9, rtol=0)


def test_opposite_quaternion_is_the_same_target(robot):
    q, target = problem(robot, 5)
    flipped = torch.cat([target[:, :3], -target[:, 3:]], dim=-1)
    torch.testing.assert_close(robot.refine(q, flipped).q, robot.refine(q, target).q)


def test_float32_converges_at_singular_poses():
    # Straight arm, wrist aligned: J J^T is singular and its rounding in float32 is above the damping floor.
    robot = ROBOTS["ur10"]
    start = torch.zeros(1, 6)
    target = robot.fk(torch.tensor([[0.3, -0.4, 0.5, 0.2, -0.6, 0.1]]))
    result = robot.refine(start, target, max_iterations=50)
    assert result.converged.all()


def test_continuous_joint_turns_past_pi_and_is_wrapped():
    origins = torch.eye(4, dtype=torch.float64)[:3].repeat(3, 1, 1)
    origins[1, :, 3] = torch.tensor([0.5, 0.0, 0.0])
    chain = Chain(origins, ("continuous", "prismatic"))
    lower, upper = torch.tensor([[-math.pi, 0.0], [math.pi, 0.4]], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        q = torch.tensor([[3.0, 0.1], [-3.0, 0.3], [9.0, 0.3]], dtype=dtype)
        target = fk(chain, torch.tensor([[-3.0, 0.3], [3.0, 0.1], [2.0, 0.2]], dtype=dtype))
        result = refine_joints(chain, lower, upper, q, target)
        assert result.converged.all()
        expected = torch.tensor([[-3.0, 0.3], [3.0, 0.1], [2.0, 0.2]], dtype=dtype)
        torch.testing.assert_close(result.q, expected, atol=3e-5, rtol=0)
        assert (result.q.double() >= lower).all()
        assert (result.q.double() <= upper).all()


def test_fixed_number_of_steps_is_differentiable(robot):
    q, target = problem(robot, 3, noise=0.2)
    q, target = robot.clamp(q).requires_grad_(), target.requires_grad_()

    def two_steps(q, target):
        return robot.refine(q, target, max_iterations=2, tol_pos=0.0, tol_rot=0.0).q

    assert torch.autograd.gradcheck(two_steps, (q, target), eps=1e-7, atol=1e-3, rtol=1e-3)
    _, tangent = torch.func.jvp(lambda q: two_steps(q, target.detach()), (q.detach(),), (torch.ones_like(q),))
    step = 1e-7
    difference = (two_steps(q + step, target) - two_steps(q - step, target)).detach() / (2 * step)
    torch.testing.assert_close(tangent, difference, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("q", "target", "options", "message"),
    [
        (torch.zeros(7), torch.zeros(1, 7), {}, r"q: expected \[N, 7\], got \[7\]"),
        (torch.zeros(2, 6), torch.zeros(2, 7), {}, r"q: expected \[\.\.\., 7\].*got \[2, 6\]"),
        (torch.zeros(2, 7), torch.zeros(3, 7), {}, r"target_pose: expected \[2, 7\].*got \[3, 7\]"),
        (torch.zeros(2, 7), torch.zeros(2, 7).double(), {}, r"target_pose: expected .*float32.*got .*float64"),
        (torch.zeros(2, 7), torch.zeros(2, 7), {"max_iterations": -1}, r"max_iterations.*non-negative.*got -1"),
        (torch.zeros(2, 7), torch.zeros(2, 7), {"tol_pos": math.nan}, r"tol_pos.*non-negative.*got 20, nan"),
    ],
)
def test_refine_rejects_bad_arguments_by_name(q, target, options, message):
    with pytest.raises(ArgumentError, match=message):
        ROBOTS["panda"].refine(q, target, **options)
