import importlib
import math

import pytest
import torch

from mfik import kinematics, robots
from mfik.errors import ArgumentError
from mfik.ops import _backend, _reference, fk, refine

# Roundings of a chain of ten transforms of metre size.
FK_ATOL = {torch.float32: 2e-6, torch.float64: 1e-14}


def sample(robot, n, device="cpu", dtype=torch.float64, seed=0):
    return robot.sample(n, torch.Generator().manual_seed(seed), torch.float64).to(device, dtype)


@pytest.mark.parametrize("batch", [0, 1, 33, 10007])
def test_fk_matches_kinematics(backend, device, dtype, robot, batch):
    q = sample(robot, batch, device, dtype)
    pose = fk(robot, q)
    assert pose.shape == (batch, 7) and pose.dtype == dtype and pose.device == q.device
    expected = kinematics.fk(robot.chain, q)
    assert (pose[:, 3] >= 0).all()
    if batch:
        assert (pose[:, :3] - expected[:, :3]).abs().max() <= FK_ATOL[dtype]
        # At qw = 0 the sign of the quaternion is a matter of rounding.
        assert ((pose[:, 3:] * expected[:, 3:]).sum(-1).abs() - 1).abs().max() <= FK_ATOL[dtype]


def test_fk_accepts_strided_rows_and_passes_nan_on(backend, device, dtype, robot):
    q = sample(robot, 33, device, dtype)
    strided = q.t().contiguous().t()
    assert not strided.is_contiguous()
    assert torch.equal(fk(robot, strided), fk(robot, q))
    q[3, 0] = torch.nan
    assert fk(robot, q).isnan().any(-1).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("batch", [0, 1, 33, 2003])
def test_refine_is_the_algorithm_of_kinematics(backend, robot, batch):
    q, target = sample(robot, batch), kinematics.fk(robot.chain, sample(robot, batch, seed=1))
    got = refine(robot, q, target, max_iterations=6)
    expected = kinematics.refine(robot.chain, robot.lower, robot.upper, q, target, max_iterations=6)
    assert got.q.shape == q.shape and got.converged.dtype == torch.bool and got.iterations.dtype == torch.int32
    # Few steps: near singular poses each one multiplies rounding by up to 1e4 (damping floor 1e-8). The rare row on
    # which the active sets differ by a rounding is let pass.
    same = (got.q - expected.q).abs().amax(-1) < 1e-6 if batch else torch.ones(0, dtype=torch.bool)
    assert (~same).sum() <= 0.002 * batch
    assert torch.equal(got.converged[same], expected.converged[same])
    assert torch.equal(got.iterations[same].long(), expected.iterations[same])


def test_refine_solves_local_problems(backend, device, dtype, robot):
    solution = sample(robot, 1001, device, dtype)
    noise = torch.randn(solution.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target = kinematics.fk(robot.chain, solution)
    result = refine(robot, solution + 0.1 * noise.to(device, dtype), target, tol_pos=1e-4, tol_rot=1e-4)
    assert result.converged.double().mean() > 0.98
    q = result.q.double().cpu()
    assert (q >= robot.lower).all() and (q <= robot.upper).all()
    pose = kinematics.fk(robot.chain, q[result.converged.cpu()])
    reached = target.double().cpu()[result.converged.cpu()]
    # What converged holds for the returned joints; the fallback judged them in float32 itself.
    slack = 2e-6 if dtype == torch.float32 else 1e-12
    assert kinematics.position_error_m(pose, reached).max() <= 1e-4 + slack
    assert kinematics.rotation_error_rad(pose, reached).max() <= 1e-4 + slack


def test_float32_rounding_counts_against_the_tolerance(native):
    robot = robots.load_robot("panda")
    solution = sample(robot, 200)
    target = kinematics.fk(robot.chain, solution).float()
    result = refine(robot, solution.float(), target, tol_pos=1e-12, tol_rot=1e-12)
    assert not result.converged.any()


def test_joints_on_a_limit_stay_within_it_in_float32(native):
    robot = robots.load_robot("panda")  # its limits are not float32 numbers
    q = torch.stack([robot.lower - 1, robot.upper + 1]).float()
    result = refine(robot, q, kinematics.fk(robot.chain, q), max_iterations=0)
    q = result.q.double()
    assert (q >= robot.lower).all() and (q <= robot.upper).all()
    torch.testing.assert_close(q, torch.stack([robot.lower, robot.upper]), rtol=0, atol=1e-6)


def test_continuous_joints_end_within_a_turn(backend, dtype):
    origins = torch.eye(4, dtype=torch.float64)[:3].repeat(2, 1, 1)
    limit = torch.tensor([math.pi], dtype=torch.float64)
    robot = robots.Robot("one", "a", "b", kinematics.Chain(origins, ("continuous",)), ("j",), -limit, limit)
    q = torch.tensor([[7.0], [-100.0], [math.pi], [-math.pi]], dtype=dtype)
    result = refine(robot, q, kinematics.fk(robot.chain, q))
    assert result.converged.all() and (result.iterations == 0).all()
    assert (result.q.double().abs() <= math.pi).all()
    torch.testing.assert_close(result.q.cos(), q.cos(), rtol=0, atol=1e-5)


def test_unusable_rows_are_not_converged_and_harm_no_other(backend, device, dtype, robot):
    q = sample(robot, 8, device, dtype)
    target = kinematics.fk(robot.chain, sample(robot, 8, device, dtype, seed=1))
    clean = refine(robot, q, target)
    q[1, 0], q[2, -1], target[3, 0], target[4, 5] = torch.nan, torch.inf, torch.nan, -torch.inf
    target[5, 3:] = 0
    result = refine(robot, q, target)
    bad = torch.tensor([1, 2, 3, 4, 5], device=device)
    good = torch.tensor([0, 6, 7], device=device)
    assert result.q[bad].isnan().all() and not result.converged[bad].any() and not result.iterations[bad].any()
    torch.testing.assert_close(result.q[good], clean.q[good], rtol=1e-4, atol=1e-5)  # batched solvers may round


def test_refine_takes_any_quaternion_and_strided_rows(backend, dtype, robot):
    q, target = sample(robot, 33, dtype=dtype), fk(robot, sample(robot, 33, dtype=dtype, seed=1))
    expected = refine(robot, q, target, max_iterations=3)
    scaled = target.clone()
    scaled[:, 3:] *= -2.0
    result = refine(robot, q.t().contiguous().t(), scaled.t().contiguous().t(), max_iterations=3)
    torch.testing.assert_close(result.q, expected.q, rtol=0, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_results_do_not_depend_on_the_number_of_threads(native, set_threads, robot):
    q, target = sample(robot, 5000), fk(robot, sample(robot, 5000, seed=1))
    set_threads(1)
    one = [fk(robot, q), *refine(robot, q, target, max_iterations=5)]
    set_threads(5)
    many = [fk(robot, q), *refine(robot, q, target, max_iterations=5)]
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


def test_fallback_gives_the_same_poses(native, monkeypatch, robot):
    q = sample(robot, 100)
    kernel = fk(robot, q)
    monkeypatch.setattr(_backend, "native", None)
    assert torch.equal(fk(robot, q), _reference.fk(robot, q))
    torch.testing.assert_close(kernel, fk(robot, q), rtol=0, atol=1e-12)


def test_derivatives_are_refused(backend, robot):
    q = sample(robot, 3)
    target = fk(robot, q)
    with pytest.raises(ArgumentError, match=r"q: expected no gradient.* use robot.fk\(q\)"):
        fk(robot, q.clone().requires_grad_())
    with pytest.raises(ArgumentError, match="q: expected no tangent"):
        torch.func.jvp(lambda x: fk(robot, x), (q,), (q,))
    with pytest.raises(ArgumentError, match="target_pose: expected no gradient.* use kinematics.refine"):
        refine(robot, q, target.requires_grad_())


def test_opcheck(native, dtype, robot):
    q, target = sample(robot, 33, dtype=dtype), fk(robot, sample(robot, 33, dtype=dtype, seed=1))
    kinds = [{"revolute": 0, "prismatic": 1, "continuous": 2}[kind] for kind in robot.kinds]
    torch.library.opcheck(torch.ops.mfik.fk.default, (q, robot.chain.origins, kinds))
    torch.library.opcheck(
        torch.ops.mfik.refine.default,
        (q, target, robot.chain.origins, kinds, robot.lower, robot.upper, 3, 1e-5, 1e-5),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(q=torch.zeros(3, 6)), r"q: expected \[N, 7\], got \[3, 6\]"),
        (dict(q=torch.zeros(7)), r"q: expected \[N, 7\]"),
        (dict(q=torch.zeros(3, 7, dtype=torch.int32)), "q: expected torch.float32 or torch.float64"),
        (dict(target_pose=torch.zeros(2, 7)), r"target_pose: expected \[3, 7\]"),
        (dict(target_pose=torch.zeros(3, 7).double()), "target_pose: expected torch.float32"),
        (dict(max_iterations=-1), "max_iterations: "),
        (dict(tol_pos=float("nan")), "tol_pos: expected a number >= 0, got nan"),
        (dict(tol_rot=-1.0), "tol_rot: "),
    ],
)
def test_bad_arguments_are_named(change, message):
    robot = robots.load_robot("panda")
    kwargs = {**dict(q=torch.zeros(3, 7), target_pose=torch.zeros(3, 7)), **change}
    with pytest.raises(ArgumentError, match=message):
        refine(robot, **kwargs)
    if "q" in change:
        with pytest.raises(ArgumentError, match=message):
            fk(robot, change["q"])


def test_constants_agree_with_the_kernel(native):
    module = importlib.import_module("mfik.kinematics.refine")  # the package's attribute is the function
    assert (native.damping_gain, native.damping_floor) == (module.DAMPING_GAIN, module.DAMPING_FLOOR)
