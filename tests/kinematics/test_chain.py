"""Forward kinematics and Jacobian: derivatives, dtypes, shapes."""

from __future__ import annotations

import math

import pytest
import torch

from mfik.errors import ArgumentError, RobotError
from mfik.kinematics import Chain, fk, fk_and_jacobian, jacobian, pose_error, position_error_m, rotation_error_rad
from mfik.robots import load_robot


def identity_origins(rows: int) -> torch.Tensor:
    return torch.eye(4, dtype=torch.float64)[:3].repeat(rows, 1, 1)


def mixed_chain() -> Chain:
    """Return a slider, a continuous and a revolute joint, with turned and shifted origins."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(4, 3, 3, generator=generator, dtype=torch.float64))[0]
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    origins = torch.cat([rotation, torch.randn(4, 3, 1, generator=generator, dtype=torch.float64)], dim=-1)
    return Chain(origins, ("prismatic", "continuous", "revolute"))


CHAINS = {"panda": load_robot("panda").chain, "ur10": load_robot("ur10").chain, "mixed": mixed_chain()}


@pytest.fixture(params=CHAINS)
def chain(request: pytest.FixtureRequest) -> Chain:
    return CHAINS[request.param]


def joints(chain: Chain, *batch: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(*batch, chain.dof, generator=generator, dtype=torch.float64) * 6 - 3).to(dtype)


def test_joints_act_along_and_about_their_own_z_axis():
    origins = identity_origins(3)
    origins[1, :, 3] = torch.tensor([1.0, 0.0, 0.0])
    origins[2, :, 3] = torch.tensor([1.0, 0.0, 0.0])
    pose = fk(Chain(origins, ("prismatic", "revolute")), torch.tensor([0.5, math.pi / 2], dtype=torch.float64))
    half = math.sqrt(0.5)
    torch.testing.assert_close(pose, torch.tensor([1.0, 1.0, 0.5, half, 0.0, 0.0, half], dtype=torch.float64))


def test_fk_is_unit_and_canonical(chain):
    quat = fk(chain, joints(chain, 1000))[:, 3:]
    assert (quat[:, 0] >= 0).all()
    assert (quat.norm(dim=-1) - 1).abs().max() < 1e-15


def test_jacobian_matches_finite_differences(chain):
    q, step = joints(chain, 20), 1e-6
    jac = jacobian(chain, q)
    for joint in range(chain.dof):
        shift = torch.zeros(chain.dof, dtype=torch.float64)
        shift[joint] = step
        column = pose_error(fk(chain, q - shift), fk(chain, q + shift)) / (2 * step)
        # Central differences: truncation step^2 plus rounding 1e-16 / step, some 1e-9.
        torch.testing.assert_close(jac[..., joint], column, atol=1e-8, rtol=0)


def test_jacobian_matches_autograd(chain):
    q = joints(chain, 20)
    pose = fk(chain, q)

    def displacement(q: torch.Tensor) -> torch.Tensor:
        return pose_error(pose, fk(chain, q)).sum(0)

    jac = torch.autograd.functional.jacobian(displacement, q)  # [6, N, J]
    torch.testing.assert_close(jacobian(chain, q), jac.movedim(0, 1), atol=1e-12, rtol=0)


def test_fk_and_jacobian_pass_gradcheck(chain):
    q = joints(chain, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: fk(chain, q), q, check_forward_ad=True)
    assert torch.autograd.gradcheck(lambda q: jacobian(chain, q), q, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda q: fk(chain, q), q)
    assert torch.autograd.gradgradcheck(lambda q: jacobian(chain, q), q)


def test_jvp_of_fk_matches_finite_differences(chain):
    q, tangent, step = joints(chain, 5), joints(chain, 5).flip(0), 1e-6
    value, derivative = torch.func.jvp(lambda q: fk(chain, q), (q,), (tangent,))
    torch.testing.assert_close(value, fk(chain, q))
    difference = (fk(chain, q + step * tangent) - fk(chain, q - step * tangent)) / (2 * step)
    torch.testing.assert_close(derivative, difference, atol=1e-7, rtol=0)


def test_float32_fk_is_within_5_micrometres_and_microradians(chain):
    q = joints(chain, 1000, dtype=torch.float32)
    single, double = fk(chain, q), fk(chain, q.double())
    assert single.dtype == torch.float32
    # float32 has 1e-7 relative; up to 8 products of quaternions and some metres of reach. Largest of 20,000: 2.8e-6.
    assert position_error_m(single.double(), double).max() < 5e-6
    assert rotation_error_rad(single.double(), double).max() < 5e-6
    torch.testing.assert_close(jacobian(chain, q).double(), jacobian(chain, q.double()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [(), (0,), (1,), (33,), (2, 3), (2, 0)])
def test_batch_dimensions_lead_and_equal_a_loop(chain, batch):
    q = joints(chain, *batch)
    pose, jac = fk_and_jacobian(chain, q)
    assert pose.shape == (*batch, 7)
    assert jac.shape == (*batch, 6, chain.dof)
    rows = q.reshape(-1, chain.dof)
    for row, pose_row, jac_row in zip(rows, pose.reshape(-1, 7), jac.reshape(-1, 6, chain.dof), strict=True):
        torch.testing.assert_close(fk(chain, row), pose_row, atol=1e-14, rtol=0)
        torch.testing.assert_close(jacobian(chain, row), jac_row, atol=1e-14, rtol=0)


@pytest.mark.parametrize("first", ["inference", "jvp", "no_grad"])
def test_what_a_chain_keeps_serves_later_calls(first):
    """Its constants, made in the first call, are none of the mode in which that call was."""
    chain, fresh = mixed_chain(), mixed_chain()
    q = joints(chain, 3)
    if first == "jvp":
        torch.func.jvp(lambda q: fk(chain, q), (q,), (q,))
    else:
        with torch.inference_mode() if first == "inference" else torch.no_grad():
            fk(chain, q)
    assert torch.autograd.gradcheck(lambda q: fk(chain, q), q.clone().requires_grad_())
    _, derivative = torch.func.jvp(lambda q: fk(chain, q), (q,), (torch.ones_like(q),))
    _, expected = torch.func.jvp(lambda q: fk(fresh, q), (q,), (torch.ones_like(q),))
    torch.testing.assert_close(derivative, expected)


def test_strided_q_gives_the_same_pose(chain):
    q = joints(chain, 4)
    wide = torch.stack([q, q], dim=-1)[..., 0]
    assert not wide.is_contiguous()
    torch.testing.assert_close(fk(chain, wide), fk(chain, q))


def test_nan_stays_in_its_row(chain):
    q = joints(chain, 3)
    q[1, 0] = math.nan
    pose = fk(chain, q)
    assert pose[1].isnan().any()
    assert pose[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dof", [1, 16])
def test_chains_of_1_and_16_joints_work(dof):
    chain = Chain(identity_origins(dof + 1), ("revolute",) * dof)
    angle = torch.full((dof,), 1.0 / dof, dtype=torch.float64)
    expected = torch.tensor([0, 0, 0, math.cos(0.5), 0, 0, math.sin(0.5)], dtype=torch.float64)
    torch.testing.assert_close(fk(chain, angle), expected)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (torch.zeros(3, 6), r"q: expected \[\.\.\., 7\].*got \[3, 6\]"),
        (torch.zeros(()), r"q: expected \[\.\.\., 7\].*got \[\]"),
        (torch.zeros(3, 7, dtype=torch.int64), r"q: expected torch.float32 or torch.float64, got torch.int64"),
        (torch.zeros(3, 7, dtype=torch.bfloat16), r"q: expected torch.float32 .*got torch.bfloat16"),
        ([0.0] * 7, r"q: expected a tensor \[\.\.\., 7\], got list"),
    ],
)
def test_fk_rejects_bad_joints_by_name(q, message):
    with pytest.raises(ArgumentError, match=message):
        fk(CHAINS["panda"], q)


@pytest.mark.parametrize(
    ("origins", "kinds", "message"),
    [
        (identity_origins(2), (), "kinds: expected 1 to 16 joints, got 0"),
        (identity_origins(18), ("revolute",) * 17, "kinds: expected 1 to 16 joints, got 17"),
        (identity_origins(2), ("screw",), "kinds: expected each to be one of .*got 'screw'"),
        (identity_origins(3), ("revolute",), r"origins: expected \[2, 3, 4\].*got \[3, 3, 4\]"),
        (identity_origins(2).float(), ("revolute",), "origins: expected .*float64.*got .*float32"),
        (identity_origins(2) * 1.001, ("revolute",), r"origins\[0\]: expected a rigid transform"),
        (-identity_origins(2), ("revolute",), r"origins\[0\]: expected a rigid transform"),
        (identity_origins(2) * math.nan, ("revolute",), r"origins\[0\]: expected a rigid transform"),
    ],
)
def test_chain_rejects_what_is_no_chain(origins, kinds, message):
    with pytest.raises(RobotError, match=message):
        Chain(origins, kinds)
