"""Batches whose lines are drawn from the robot itself."""

import math

import pytest
import torch

from mfik import kinematics
from mfik.errors import ArgumentError
from mfik.ops import Batch, _reference, draw_batch, draw_normal, sample_batch

DRAW = dict(seed=2**62 + 12345, step=2**40 + 7, rank=3)


@pytest.mark.parametrize("batch", [0, 1, 33, 5003])
def test_kernel_matches_reference(native, device, dtype, robot, batch):
    draw = dict(**DRAW, num_jvp=2 * batch // 3, num_endpoint=batch // 3, dtype=dtype, device=device)
    got, expected = draw_batch(robot, batch, **draw), _reference.draw_batch(robot, batch, **draw)
    for name, value, reference in zip(Batch._fields, got, expected, strict=True):
        assert value.shape == reference.shape and value.dtype == dtype and value.device.type == device.type, name
        if name in ("q_target", "r", "t"):
            assert torch.equal(value, reference), name
        elif name == "target_pose":  # at qw = 0 the sign is a matter of rounding
            sign = (value[:, 3:] * reference[:, 3:]).sum(-1, keepdim=True).sign()
            torch.testing.assert_close(value[:, 3:], sign * reference[:, 3:], rtol=0, atol=2e-6)
            torch.testing.assert_close(value[:, :3], reference[:, :3], rtol=0, atol=2e-6)
        else:
            torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-5, msg=name)


def test_draws_the_same_joints_on_every_device_and_dtype(backend, device, dtype, robot):
    draw = dict(**DRAW, num_jvp=20, num_endpoint=10)
    here = draw_batch(robot, 100, **draw, dtype=dtype, device=device)
    there = draw_batch(robot, 100, **draw, dtype=torch.float64)
    torch.testing.assert_close(here.q_target.double().cpu(), there.q_target, rtol=0, atol=1e-6)
    assert torch.equal(here.r.double().cpu(), there.r) and torch.equal(here.t.double().cpu(), there.t)


def test_poses_are_those_of_the_solutions_and_joints_lie_within_the_limits(backend, device, dtype, robot):
    batch = draw_batch(robot, 5000, **DRAW, num_jvp=5000, num_endpoint=5000, dtype=dtype, device=device)
    pose = kinematics.fk(robot.chain, batch.q_target.double().cpu())
    got = batch.target_pose.double().cpu()
    assert kinematics.position_error_m(got, pose).max() < 2e-6 and (got[:, 3] >= 0).all()
    # 4e-4: what float32 poses can tell of an angle, by the arc cosine.
    assert kinematics.rotation_error_rad(got, pose).max() < (1e-3 if dtype == torch.float32 else 1e-7)
    q, q_target = batch.q.double().cpu(), batch.q_target.double().cpu()  # at (0, 1): the reference itself
    free = torch.tensor([kind == "continuous" for kind in robot.chain.kinds])
    lower, upper = robot.limits()
    for joints in (q, torch.where(free, q, q_target)):
        assert (joints >= lower).all() and (joints <= upper).all()
    share = (q - lower) / (upper - lower)
    uniform = torch.linspace(0, 1, 5000, dtype=torch.float64)
    assert (share.sort(dim=0).values - uniform[:, None]).abs().max() < 0.03  # Kolmogorov-Smirnov, 1 in 4000 seeds
    correlation = torch.corrcoef(torch.cat([q, q_target], dim=1).mT)
    off = correlation - torch.diag(correlation.diag())
    turns = (upper - lower) > 2 * math.pi - 1e-9  # the nearest turn ties a solution to its reference
    if not turns.any():
        assert off.abs().max() < 0.075  # 5 standard deviations


def test_a_joint_with_several_turns_takes_the_nearest(backend):
    from mfik.robots import load_robot

    robot = load_robot("ur10")
    batch = draw_batch(robot, 5000, **DRAW, num_jvp=5000, num_endpoint=5000, dtype=torch.float64)
    lower, upper = robot.limits()
    wide = (upper - lower) > 4 * math.pi - 1e-6
    assert wide.any()
    for turn in (-2 * math.pi, 2 * math.pi):
        other = batch.q_target + turn
        allowed = wide & (other >= lower) & (other <= upper)
        nearer = (other - batch.q).abs() < (batch.q_target - batch.q).abs() - 1e-12
        assert not (allowed & nearer).any()


def test_lines_are_those_that_sample_batch_would_take_from_data(backend, device, dtype, tolerance, robot):
    draw = dict(**DRAW, num_jvp=60, num_endpoint=20)
    drawn = draw_batch(robot, 90, **draw, dtype=dtype, device=device)
    start = drawn.q_target - drawn.v
    data = (start, drawn.target_pose, drawn.q_target, torch.zeros_like(drawn.r))
    for name, value, expected in zip(Batch._fields, drawn, sample_batch(*data, **draw), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=tolerance["atol"], msg=name)


@pytest.mark.parametrize("name", ["seed", "step", "rank"])
def test_other_seeds_steps_and_ranks_draw_other_lines(backend, device, name):
    from mfik.robots import load_robot

    kwargs = dict(seed=1, step=1, rank=1, num_jvp=0, num_endpoint=0, device=device)
    a = draw_batch(load_robot("panda"), 2000, **kwargs)
    b = draw_batch(load_robot("panda"), 2000, **{**kwargs, name: 2})
    for j in range(7):
        pair = torch.stack((a.q_target[:, j], b.q_target[:, j]))
        assert torch.corrcoef(pair)[0, 1].abs() < 0.11  # 5 standard deviations


def test_a_step_in_device_memory_is_the_step(backend, device, robot):
    step = torch.tensor([DRAW["step"]], device=device)
    kwargs = dict(num_jvp=5, num_endpoint=2, device=device)
    a, b = draw_batch(robot, 9, **DRAW, **kwargs), draw_batch(robot, 9, **{**DRAW, "step": step}, **kwargs)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    data = (b.q, b.target_pose, b.q_target, b.r)
    c, d = (sample_batch(*data, **{**DRAW, "step": s}, num_jvp=5, num_endpoint=2) for s in (step, DRAW["step"]))
    assert all(torch.equal(x, y) for x, y in zip(c, d, strict=True))
    step += 1
    assert not torch.equal(sample_batch(*data, **{**DRAW, "step": step}, num_jvp=5, num_endpoint=2).r, c.r)


def test_result_does_not_depend_on_the_number_of_threads(native, set_threads, robot):
    results = []
    for threads in (1, 5):
        set_threads(threads)
        results.append(draw_batch(robot, 5001, **DRAW, num_jvp=9, num_endpoint=3))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_opcheck(native, device, dtype, robot):
    chain = (robot.chain.transforms(), [0] * robot.dof, *robot.limits())
    step = torch.tensor([3], device=device)
    torch.library.opcheck(torch.ops.mfik.draw_batch.default, (*chain, 9, step, dtype, 1, 2, 5, 2, 1e-4, 0.5))


def test_normal_numbers_are_normal_and_a_function_of_their_arguments(device):
    step = torch.tensor([5], device=device)
    x = draw_normal((20_000, 7), 1, step, 0)
    assert x.shape == (20_000, 7) and x.isfinite().all() and torch.equal(x, draw_normal((20_000, 7), 1, step, 0))
    assert x.mean().abs() < 0.014 and (x.std() - 1).abs() < 0.01  # 5 standard deviations
    normal = torch.distributions.Normal(0.0, 1.0)
    ranks = normal.cdf(x).sort(dim=0).values
    uniform = torch.linspace(0, 1, 20_000, device=device)[:, None]
    assert (ranks - uniform).abs().max() < 0.015  # Kolmogorov-Smirnov, once in 4000 seeds
    correlation = torch.corrcoef(torch.cat([x, draw_normal((20_000, 7), 1, step + 1, 0)], dim=1).mT)
    assert (correlation - torch.eye(14, device=device)).abs().max() < 0.036


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(batch=-1), "batch: expected an integer"),
        (dict(dtype=torch.float16), "dtype: expected torch.float32 or torch.float64"),
        (dict(seed=-1), "seed: "),
        (dict(step=-1), "step: expected an integer in"),
        (dict(step=torch.tensor(3)), r"step: expected an integer or a tensor \[1\] torch.int64 on cpu, got \[\]"),
        (dict(step=torch.tensor([3.0])), "step: .* got .* torch.float32"),
        (dict(step=torch.tensor([3], device="meta")), "step: .* on meta"),
        (dict(num_jvp=5), "num_jvp: "),
        (dict(num_endpoint=3), "num_endpoint: "),
        (dict(c=0.0), "c: "),
    ],
)
def test_bad_arguments_are_named(panda, change, message):
    with pytest.raises(ArgumentError, match=message):
        draw_batch(**{**dict(robot=panda, batch=4, **DRAW, num_jvp=2, num_endpoint=1), **change})
