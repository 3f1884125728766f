"""The forward-kinematics loss of a row: its value, its gradient, and what it refuses."""

import math

import pytest
import torch

from mfik.errors import ArgumentError
from mfik.ops import _reference, fk_error


def rows(robot, batch, device="cpu", dtype=torch.float64):
    """Joints and targets: far apart, nearly solved, solved, either sign of the quaternion."""
    generator = torch.Generator().manual_seed(batch)
    q, other = (robot.sample(batch, generator, torch.float64) for _ in range(2))
    pose = robot.fk(other)
    if batch > 1:
        pose[:3], pose[3:5] = robot.fk(q[:3] + 1e-4), robot.fk(q[3:5])
        pose[::2, 3:] *= -1
    return q.to(device, dtype), pose.to(device, dtype)


@pytest.mark.parametrize(("batch", "counted"), [(1, 1), (7, 7), (33, 20), (5001, 5001)])
def test_value_and_gradient_are_those_of_the_reference(native, device, dtype, robot, batch, counted):
    """Both in float64 whatever the dtype: sines and cosines of the kernel's own, and the last rounding, differ."""
    q, pose = rows(robot, batch, device, dtype)
    results = []
    for function in (fk_error, _reference.fk_error):
        joints = q.clone().requires_grad_()
        error = function(robot, joints, pose, counted)
        assert error.shape == () and error.dtype == dtype
        results.append((error.detach(), counted * torch.autograd.grad(error, joints)[0]))
        assert (results[-1][1][counted:] == 0).all()
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == torch.float32 else dict(rtol=1e-9, atol=1e-10)
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, **tolerance)


def test_it_is_the_formula(backend, device, robot):
    """On the chord of the half angle: sqrt(4 sin^2(a / 2)) is 2 at a half turn."""
    q, _ = rows(robot, 2, device)
    pose = robot.fk(q)
    pose[:, :3] += torch.tensor([0.03, 0.0, -0.04], device=device, dtype=torch.float64)
    w, x, y, z = pose[:, 3:].clone().T
    pose[1, 3:] = torch.stack((-x, w, z, -y))[:, 1]  # a half turn about the tool's x axis
    first, second = (math.hypot(0.05, 1e-3) + angle for angle in (1e-3, math.sqrt(4 + 1e-6)))
    assert fk_error(robot, q, pose, 1).item() == pytest.approx(first, rel=1e-9)
    assert fk_error(robot, q, pose).item() == pytest.approx((first + second) / 2, rel=1e-9)


def test_gradient_matches_finite_differences(backend, device, robot):
    q, pose = rows(robot, 4, device)
    assert torch.autograd.gradcheck(lambda joints: fk_error(robot, joints, pose.roll(2, 0)), q.requires_grad_())


def test_accepts_strided_rows_and_passes_nan_on(backend, device, dtype, robot):
    q, pose = rows(robot, 9, device, dtype)
    wide = torch.full((9, 2 * q.shape[1]), torch.nan, device=device, dtype=dtype)
    wide[:, ::2] = q
    assert torch.equal(fk_error(robot, wide[:, ::2], pose), fk_error(robot, q, pose))
    q[4] = torch.nan
    q.requires_grad_()
    error = fk_error(robot, q, pose)
    (gradient,) = torch.autograd.grad(error, q)
    assert error.isnan() and gradient[torch.arange(9, device=device) != 4].isfinite().all()


def test_results_do_not_depend_on_the_number_of_threads(native, set_threads, robot):
    q, pose = rows(robot, 20_000)
    results = []
    for threads in (1, 3):
        set_threads(threads)
        results.append(fk_error(robot, q, pose))
    assert torch.equal(*results)


def test_a_second_derivative_is_refused(native, robot):
    q, pose = rows(robot, 3)
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(fk_error(robot, q, pose), q, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def test_lost_derivatives_are_refused(backend, robot):
    q, pose = rows(robot, 3)
    with pytest.raises(ArgumentError, match="target_pose: expected no gradient, as fk_error has none"):
        fk_error(robot, q, pose.clone().requires_grad_())
    with pytest.raises(ArgumentError, match="q: expected no tangent, as fk_error has none"):
        torch.func.jvp(lambda joints: fk_error(robot, joints, pose), (q,), (q,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(q=torch.zeros(3, 6)), r"q: expected \[N, 7\], got \[3, 6\]"),
        (dict(q=torch.zeros(3, 7, dtype=torch.int32)), "q: expected torch.float32 or torch.float64"),
        (dict(target_pose=torch.zeros(2, 7)), r"target_pose: expected \[3, 7\]"),
        (dict(target_pose=torch.zeros(3, 7).double()), "target_pose: expected torch.float32"),
        (dict(rows=0), r"rows: expected an integer in \[1, 3\], got 0"),
        (dict(rows=4), "rows: expected an integer"),
    ],
)
def test_bad_arguments_are_named(panda, change, message):
    with pytest.raises(ArgumentError, match=message):
        fk_error(panda, **{"q": torch.zeros(3, 7), "target_pose": torch.zeros(3, 7), **change})
