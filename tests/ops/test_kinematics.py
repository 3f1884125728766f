import importlib
import importlib.resources
import math

import numpy as np
import pytest
import torch

from mfik import kinematics, robots
from mfik.errors import ArgumentError
from mfik.ops import _backend, _reference, fk, jacobian, refine, solve

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


@pytest.mark.parametrize("batch", [0, 1, 33, 5003])
def test_jacobian_matches_reference(backend, device, dtype, robot, batch):
    q = sample(robot, batch, device, dtype)
    jac = jacobian(robot, q)
    assert jac.shape == (batch, 6, robot.dof) and jac.dtype == dtype and jac.device == q.device
    torch.testing.assert_close(jac, kinematics.jacobian(robot.chain, q), rtol=0, atol=2 * FK_ATOL[dtype])
    strided = q.t().contiguous().t()
    assert torch.equal(jacobian(robot, strided), jac)


def test_jacobian_is_the_derivative_of_fk(backend, device, robot):
    q, step = sample(robot, 50, device), 1e-6
    jac = jacobian(robot, q)
    for joint in range(robot.dof):
        change = torch.zeros_like(q)
        change[:, joint] = step
        twist = kinematics.pose_error(fk(robot, q - change), fk(robot, q + change)) / (2 * step)
        torch.testing.assert_close(jac[:, :, joint], twist, rtol=0, atol=1e-8)  # O(step^2), rounding / step


def test_jacobian_matches_pinocchio(native, device):
    pin = pytest.importorskip("pinocchio", reason="needs pin")
    path = importlib.resources.files("mfik.robots") / "urdf" / "panda.urdf"
    robot, model = robots.load_robot("panda"), pin.buildModelFromUrdf(str(path))
    data, frame = model.createData(), model.getFrameId("panda_link8")
    q = sample(robot, 20, device)
    for row, jac in zip(q.cpu().numpy(), jacobian(robot, q).cpu().numpy(), strict=True):
        padded = np.concatenate([row, np.zeros(model.nq - robot.dof)])
        expected = pin.computeFrameJacobian(model, data, padded, frame, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED)
        np.testing.assert_allclose(jac, expected[:, : robot.dof], atol=1e-12)


def solved_poses(result, robot, target):
    """Errors [m], [rad] of a solve's joints, in float64 on the CPU."""
    pose, target = kinematics.fk(robot.chain, result.q.double().cpu()), target.double().cpu()
    return kinematics.position_error_m(pose, target), kinematics.rotation_error_rad(pose, target)


@pytest.mark.parametrize("tol", [1e-4, 1e-5])
def test_solve_finds_random_poses_and_reports_their_errors(native, device, dtype, robot, tol):
    target = fk(robot, sample(robot, 2001, device, dtype))
    q, seeds = sample(robot, 2001, device, dtype, seed=1), sample(robot, 40, device, dtype, seed=2)
    result = solve(robot, q, target, seeds, tol_pos=tol, tol_rot=tol)
    assert result.converged.double().mean() > 0.99
    joints = result.q.double().cpu()
    assert robot.within_limits(joints).all()
    pos, rot = solved_poses(result, robot, target)
    rounding = 2e-7 if dtype == torch.float32 else 1e-9  # of the reported errors, and of the targets' quaternions
    torch.testing.assert_close(result.pos_error.double().cpu(), pos, rtol=1e-5, atol=rounding)
    torch.testing.assert_close(result.rot_error.double().cpu(), rot, rtol=1e-5, atol=rounding)
    assert torch.equal(result.converged, (result.pos_error <= tol) & (result.rot_error <= tol))
    assert (result.attempts >= 1).all() and (result.attempts <= 41).all() and (result.iterations <= 2 * 12).all()
    assert (result.attempts[~result.converged] == 41).all()


def test_solve_reaches_tolerances_that_float32_cannot(native, device, robot):
    solution = sample(robot, 500, device)
    noise = torch.randn(solution.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target = fk(robot, solution)
    result = solve(robot, solution + 0.1 * noise.to(device), target, solution[:0], tol_pos=1e-10, tol_rot=1e-10)
    assert result.converged.double().mean() > 0.95
    pos, rot = solved_poses(result, robot, target)
    found = result.converged.cpu()
    assert pos[found].max() <= 1.01e-10 and rot[found].max() <= 1.01e-10


@pytest.mark.parametrize("batch", [0, 1, 33])
def test_rows_of_a_solve_do_not_depend_on_each_other(native, device, dtype, robot, batch):
    target = fk(robot, sample(robot, 100, device, dtype))
    q, seeds = sample(robot, 100, device, dtype, seed=1), sample(robot, 20, device, dtype, seed=2)
    whole = solve(robot, q, target, seeds)
    strided = target[:batch].t().contiguous().t()
    part = solve(robot, q[:batch], strided, seeds)
    assert all(torch.equal(a[:batch], b) for a, b in zip(whole, part, strict=True))
    flipped = target[:batch] * target.new_tensor([1.0] * 3 + [-2.0] * 4)
    part = solve(robot, q[:batch], flipped, seeds)
    assert torch.equal(part.converged, whole.converged[:batch])


def test_solve_takes_the_first_start_that_converges(backend, device, dtype, robot):
    solution = sample(robot, 5, device, dtype)
    far = fk(robot, solution)
    far[1, :3] += 100.0  # out of reach
    start = sample(robot, 5, device, dtype, seed=4)
    result = solve(robot, start, far, solution, max_iterations=0, tol_pos=1e-5, tol_rot=1e-5)
    assert result.converged.tolist() == [True, False, True, True, True]
    assert result.attempts.tolist() == [2, 6, 4, 5, 6]
    torch.testing.assert_close(result.q[[0, 2, 3, 4]], solution[[0, 2, 3, 4]], rtol=0, atol=1e-6)
    # The best of what failed: no start is nearer.
    starts = torch.cat([start[1:2], solution])
    error = kinematics.pose_error(fk(robot, starts), far[1].expand(6, 7)).norm(dim=-1)
    reached = kinematics.pose_error(fk(robot, result.q[1:2]), far[1:2]).norm(dim=-1)
    torch.testing.assert_close(reached[0], error.min(), rtol=1e-5, atol=1e-5)


def test_a_start_without_steps_keeps_its_digits(backend, device, robot):
    q = sample(robot, 33, device)
    for result in (refine(robot, q, fk(robot, q), max_iterations=0), solve(robot, q, fk(robot, q), q[:0])):
        torch.testing.assert_close(result.q, robot.clamp(q.cpu()).to(device), rtol=0, atol=3e-7)  # limits in float32
        inside = (q - result.q).abs().amax(-1) < 1e-14
        assert inside.double().mean() > 0.9 and result.converged.all() and not result.iterations.any()


def test_unusable_rows_of_a_solve_are_told_apart(backend, device, dtype, robot):
    q, target = sample(robot, 8, device, dtype), fk(robot, sample(robot, 8, device, dtype, seed=1))
    seeds = sample(robot, 3, device, dtype, seed=2)
    clean = solve(robot, q, target, seeds)
    q[1, 0], q[2, -1], target[3, 0], target[4, 5] = torch.nan, torch.inf, torch.nan, -torch.inf
    target[5, 3:] = 0
    result = solve(robot, q, target, seeds)
    bad, good = [1, 2, 3, 4, 5], [0, 6, 7]
    assert result.q[bad].isnan().all() and result.pos_error[bad].isnan().all() and result.rot_error[bad].isnan().all()
    assert not (result.converged[bad].any() or result.iterations[bad].any() or result.attempts[bad].any())
    torch.testing.assert_close(result.q[good], clean.q[good], rtol=1e-4, atol=1e-5)  # batched solvers may round


@pytest.mark.parametrize("batch", [1, 300])
def test_solve_is_as_good_as_its_reference(native, device, robot, batch):
    target = fk(robot, sample(robot, batch, device))
    q, seeds = sample(robot, batch, device, seed=1), sample(robot, 8, device, seed=2)
    ours, reference = solve(robot, q, target, seeds), _reference.solve(robot, q, target, seeds)
    assert [(x.shape, x.dtype) for x in ours] == [(x.shape, x.dtype) for x in reference]
    assert abs(int(ours.converged.sum()) - int(reference.converged.sum())) <= 0.05 * batch
    first = (ours.attempts == 1) & (reference.attempts == 1) & ours.converged & reference.converged
    # Both within 1e-5: the joints differ by less than that over the least singular value, but at a near-singular one.
    close = (ours.q - reference.q).abs().amax(-1) < 5e-3
    assert close[first].double().mean() > 0.95 if first.any() else batch == 1


@pytest.mark.parametrize("batch", [0, 1, 33, 2003])
def test_refine_is_the_algorithm_of_kinematics(backend, robot, batch):
    q, target = sample(robot, batch), kinematics.fk(robot.chain, sample(robot, batch, seed=1))
    got = refine(robot, q, target, max_iterations=6)
    expected = kinematics.refine(robot.chain, *robot.limits(), q, target, max_iterations=6)
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
    assert robot.within_limits(q).all()
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
    lower, upper = robot.limits()
    q = torch.stack([lower - 1, upper + 1]).float()
    result = refine(robot, q, kinematics.fk(robot.chain, q), max_iterations=0)
    q = result.q.double()
    assert robot.within_limits(q).all()
    torch.testing.assert_close(q, torch.stack([lower, upper]), rtol=0, atol=1e-6)


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
    one = [
        fk(robot, q),
        jacobian(robot, q),
        *refine(robot, q, target, max_iterations=5),
        *solve(robot, q, target, q[:3]),
    ]
    set_threads(5)
    many = [
        fk(robot, q),
        jacobian(robot, q),
        *refine(robot, q, target, max_iterations=5),
        *solve(robot, q, target, q[:3]),
    ]
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
        refine(robot, q, target.clone().requires_grad_())
    with pytest.raises(ArgumentError, match=r"q: expected no gradient.* use robot.jacobian\(q\)"):
        jacobian(robot, q.clone().requires_grad_())
    with pytest.raises(ArgumentError, match="seeds: expected no gradient"):
        solve(robot, q, target, q.clone().requires_grad_())


def test_opcheck(native, dtype, robot):
    q, target = sample(robot, 33, dtype=dtype), fk(robot, sample(robot, 33, dtype=dtype, seed=1))
    kinds = [{"revolute": 0, "prismatic": 1, "continuous": 2}[kind] for kind in robot.kinds]
    origins = robot.chain.transforms()
    torch.library.opcheck(torch.ops.mfik.fk.default, (q, origins, kinds))
    torch.library.opcheck(torch.ops.mfik.jacobian.default, (q, origins, kinds))
    settings = (origins, kinds, *robot.limits(), 3, 1e-5, 1e-5)
    torch.library.opcheck(torch.ops.mfik.refine.default, (q, target, *settings))
    torch.library.opcheck(torch.ops.mfik.solve.default, (q, target, q[:4], *settings))


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
    with pytest.raises(ArgumentError, match=message):
        solve(robot, **kwargs, seeds=kwargs["q"])
    if "q" in change:
        for op in (fk, jacobian):
            with pytest.raises(ArgumentError, match=message):
                op(robot, change["q"])


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (torch.zeros(3, 6), r"seeds: expected \[N, 7\], got \[3, 6\]"),
        (torch.zeros(3, 7).double(), "seeds: expected torch.float32 on cpu like q"),
    ],
)
def test_bad_seeds_are_named(seeds, message):
    with pytest.raises(ArgumentError, match=message):
        solve(robots.load_robot("panda"), torch.zeros(3, 7), torch.zeros(3, 7), seeds)


def test_constants_agree_with_the_kernel(native):
    module = importlib.import_module("mfik.kinematics.refinement")
    assert (native.damping_gain, native.damping_floor) == (module.DAMPING_GAIN, module.DAMPING_FLOOR)
