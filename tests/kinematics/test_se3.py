"""SE(3) functions: group axioms and the places where rotations are delicate."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfik.kinematics import (
    canonical_quat,
    normalize_pose,
    pose_error,
    position_error_m,
    quat_conjugate,
    quat_from_matrix,
    quat_multiply,
    quat_rotate,
    quat_to_matrix,
    rotation_error_rad,
    rotation_vector,
)

IDENTITY = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
# A few roundings of float64 quaternion products; the largest seen is 1.6e-15.
TOL = 1e-14


def quat_about(axis: list[float], angle: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return the quaternion of a turn about an axis, built from half-angle formulas."""
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    return torch.cat([torch.tensor([math.cos(angle / 2)], dtype=torch.float64), math.sin(angle / 2) * unit]).to(dtype)


def pose_with(quat: torch.Tensor) -> torch.Tensor:
    return torch.cat([quat.new_zeros(3), quat])


component = st.floats(-1.0, 1.0).filter(lambda value: value == 0.0 or abs(value) > 1e-6)
quats = (
    st.tuples(component, component, component, component)
    .filter(lambda values: sum(value * value for value in values) > 1e-6)
    .map(lambda values: torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float64), dim=0))
)
vectors = st.tuples(component, component, component).map(lambda values: torch.tensor(values, dtype=torch.float64))


def same_rotation(left: torch.Tensor, right: torch.Tensor) -> bool:
    return float(rotation_error_rad(pose_with(left), pose_with(right))) < TOL


@settings(deadline=None, max_examples=50)
@given(quats, quats, quats, vectors)
def test_rotations_form_a_group_that_acts_on_vectors(a, b, c, vec):
    torch.testing.assert_close(quat_multiply(quat_multiply(a, b), c), quat_multiply(a, quat_multiply(b, c)))
    torch.testing.assert_close(quat_multiply(a, quat_conjugate(a)), IDENTITY, atol=TOL, rtol=0)
    torch.testing.assert_close(quat_rotate(quat_multiply(a, b), vec), quat_rotate(a, quat_rotate(b, vec)))
    torch.testing.assert_close(quat_rotate(a, vec), quat_to_matrix(a) @ vec, atol=TOL, rtol=0)


@settings(deadline=None, max_examples=50)
@given(quats)
def test_matrix_and_quaternion_are_inverse_conversions(quat):
    back = quat_from_matrix(quat_to_matrix(quat))
    assert back[0] >= 0
    assert same_rotation(back, quat)


@settings(deadline=None, max_examples=50)
@given(quats)
def test_rotation_vector_is_the_shortest_logarithm_whatever_the_sign(quat):
    vec = rotation_vector(quat)
    angle = float(vec.norm())
    assert angle <= math.pi + TOL
    assert same_rotation(quat_about(vec.tolist(), angle) if angle else IDENTITY, quat)
    if abs(float(quat[0])) > 1e-9:  # at half a turn both directions are shortest
        torch.testing.assert_close(rotation_vector(-quat), vec, atol=0, rtol=0)


@settings(deadline=None, max_examples=50)
@given(quats, quats, vectors)
def test_pose_error_takes_the_pose_to_the_target(a, b, shift):
    pose, target = pose_with(a), torch.cat([shift, b])
    error = pose_error(pose, target)
    torch.testing.assert_close(pose[:3] + error[:3], shift)
    turn = quat_about(error[3:].tolist(), float(error[3:].norm())) if float(error[3:].norm()) else IDENTITY
    assert same_rotation(quat_multiply(turn, a), b)
    torch.testing.assert_close(rotation_error_rad(pose, target), error[3:].norm(), atol=TOL, rtol=0)
    torch.testing.assert_close(position_error_m(pose, target), shift.norm())


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [-1, 2, 3]])
@pytest.mark.parametrize("angle", [0.0, 1e-12, math.pi - 1e-9, math.pi])
def test_quat_from_matrix_is_robust_at_every_axis_and_near_pi(axis, angle):
    quat = quat_about(axis, angle)
    assert same_rotation(quat_from_matrix(quat_to_matrix(quat)), quat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.03, 0.3, 1.0, math.pi - 1e-3])
def test_rotation_errors_keep_their_digits_from_0_to_pi(dtype, angle):
    eps = torch.finfo(dtype).eps
    identity = pose_with(IDENTITY.to(dtype))
    target = pose_with(quat_about([1, -2, 3], angle, dtype))
    # Relative accuracy below one radian: a formula with arccos(qw) would read 0 below 3e-4 rad in float32.
    assert abs(float(rotation_error_rad(identity, target)) - angle) <= 4 * eps * angle
    vec = pose_error(identity, target)[3:].double()
    expected = angle * torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), dim=0)
    torch.testing.assert_close(vec, expected, rtol=4 * eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_error_at_pi_is_pi(dtype):
    error = rotation_error_rad(pose_with(IDENTITY.to(dtype)), pose_with(torch.tensor([0, 0, 1, 0], dtype=dtype)))
    assert float(error) == pytest.approx(math.pi, rel=torch.finfo(dtype).eps)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 2.5e-4, 1.0, math.pi - 1e-4])
def test_rotation_vector_has_the_right_gradient_also_at_the_identity(angle):
    vec = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64) * angle
    quat = torch.cat(
        [torch.tensor([math.cos(angle / 2)], dtype=torch.float64), math.sin(angle / 2) / (angle or 1) * vec]
    )
    assert torch.autograd.gradcheck(
        lambda x: rotation_vector(torch.nn.functional.normalize(x, dim=0)), quat.requires_grad_()
    )


def test_rotation_error_has_a_finite_gradient_at_zero():
    pose = pose_with(IDENTITY).requires_grad_()
    rotation_error_rad(pose, pose.detach()).backward()
    assert pose.grad.isfinite().all()


def test_canonical_quat_flips_only_negative_w_and_passes_the_gradient():
    quat = torch.tensor([[-0.6, 0.8, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]], requires_grad=True)
    result = canonical_quat(quat)
    torch.testing.assert_close(result, quat * torch.tensor([[-1.0], [1.0], [1.0]]))
    result.sum().backward()
    torch.testing.assert_close(quat.grad, torch.tensor([[-1.0], [1.0], [1.0]]).expand(3, 4))


def test_normalize_pose_keeps_the_position_and_scales_the_quaternion():
    pose = normalize_pose(torch.tensor([1.0, 2.0, 3.0, -2.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(pose, torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("function", [pose_error, position_error_m, rotation_error_rad])
def test_pose_functions_reject_wrong_shapes_by_name(function):
    good, bad = torch.zeros(2, 7), torch.zeros(2, 6)
    with pytest.raises(ValueError, match=r"^pose: expected \[\.\.\., 7\].*got \[2, 6\]"):
        function(bad, good)
    with pytest.raises(ValueError, match=r"^target_pose: expected \[\.\.\., 7\].*got \[2, 6\]"):
        function(good, bad)
