"""Calls of the CUDA kernels, each with PyTorch's answers: what csrc/tests/cuda_emulation runs."""

import math
import struct
from functools import cache
from typing import NamedTuple

import torch
from random_robot import mixed_robot, random_robot

from mfik import kinematics, ops
from mfik.ops import MIN_REMAINING, _reference
from mfik.ops.kinematics import KIND_CODES
from mfik.robots import load_robot

DTYPES = (torch.float32, torch.float64)
SEED, STEP, RANK = 2**62 + 12345, 2**40 + 7, 3
C, P = 1e-3, 0.6


class Call(NamedTuple):
    """A call of a kernel, and the check of what it wrote: tensors in the order of `out` (shape and dtype)."""

    name: str
    dtype: torch.dtype
    integers: list
    reals: list
    arrays: list
    out: list
    check: object
    repeats: int = 1

    def __str__(self):
        return f"{self.name} {self.dtype} {self.integers}"

    def packed(self, shifted):
        """Return what the program reads; shifted arrays begin an element past the alignment of an allocation."""

        def values(kind, items):
            return struct.pack(f"<q{len(items)}{kind}", len(items), *items)

        arrays = [array.contiguous().numpy().tobytes() for array in self.arrays]
        return b"".join(
            [b"+", struct.pack("<q", len(self.name)), self.name.encode()]
            + [struct.pack("<qq", self.dtype == torch.float64, self.repeats)]
            + [values("q", self.integers), values("d", self.reals)]
            + [values("q", [array.dtype.itemsize * shifted for array in self.arrays])]
            + [struct.pack("<q", len(array)) + array for array in arrays]
            + [values("q", [dtype.itemsize * shifted for _, dtype in self.out])]
            + [struct.pack("<q", math.prod(shape) * dtype.itemsize) for shape, dtype in self.out]
        )


@cache
def robot_of(name):
    """Return six joints, seven, three, or eight of every kind: two are compiled with their number, two are not."""
    if name == "mixed":
        return mixed_robot()
    return random_robot("revolute", "prismatic", "continuous") if name == "short" else load_robot(name)


def numbers(*shape, seed=0, dtype):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def joints(robot, rows, seed, dtype):
    return torch.as_tensor(robot.sample(rows, torch.Generator().manual_seed(seed))).to(dtype)


def close(value, expected, *, dtype, single=1e-5, double=1e-12):
    tolerance = single if dtype == torch.float32 else double
    torch.testing.assert_close(value.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def adaptive_weight_call(rows, dof, dtype, repeats=1):
    q, q_target = numbers(2, rows, dof, dtype=dtype)

    def check(weight):
        close(weight, _reference.adaptive_weight(q, q_target, C, P), dtype=dtype)

    return Call(
        "adaptive_weight", dtype, [rows, dof], [C, P], [q, q_target], [((rows, 1), dtype)], check, repeats=repeats
    )


def times(rows):
    return dict(seed=SEED, step=STEP, rank=RANK, num_jvp=2 * rows // 3, num_endpoint=rows // 3, c=C, p=P)


def batch_integers(rows, dof):
    return [rows, dof, SEED, RANK, 2 * rows // 3, rows // 3]


def batch_shapes(rows, dof, dtype):
    return [((rows, width), dtype) for width in (dof, 7, dof, 1, 1, dof, 1)]


def sample_batch_call(rows, dof, dtype, *, indexed):
    lines = 57 if indexed else rows
    q, q_target = numbers(2, lines, dof, dtype=dtype)
    pose = numbers(lines, 7, seed=1, dtype=dtype)
    r = numbers(lines, 1, seed=2, dtype=dtype).sigmoid() * (1 - MIN_REMAINING)
    index = torch.arange(rows if indexed else 0).flip(0) * 23 % lines
    bad = torch.arange(rows) % 10 == 3 if indexed else torch.zeros(rows, dtype=torch.bool)

    def check(*batch):
        expected = _reference.sample_batch(q, pose, q_target, r, index if indexed else None, **times(rows))
        for name, value, reference in zip(ops.Batch._fields, batch, expected, strict=True):
            if name in ("r", "t"):
                assert torch.equal(value, reference)
            else:  # times 100 where a velocity was divided by MIN_REMAINING
                close(value[~bad], reference[~bad], dtype=dtype, single=1e-4)
                assert value[bad].isnan().all()

    given = index.masked_fill(bad, lines) if indexed else index
    arrays = [torch.tensor([STEP]), q, pose, q_target, r, given]
    integers = [*batch_integers(rows, dof), lines]
    return Call("sample_batch", dtype, integers, [C, P], arrays, batch_shapes(rows, dof, dtype), check)


def losses(rows, dof, dtype):
    u, v = numbers(2, rows, dof, dtype=dtype)
    r, t, weight = numbers(3, rows, 1, seed=2, dtype=dtype).sigmoid()
    return u, v, numbers(rows // 3, dof, seed=1, dtype=dtype), 0.5 * r, 0.5 + 0.5 * t, weight


def loss_call(rows, dof, dtype, *, weighted, clip):
    u, v, derivative, r, t, weight = losses(rows, dof, dtype)

    def check(loss, squared, residual):
        lines = (u.clone().requires_grad_(), v, derivative, r, t)
        expected = _reference.weighted_residual_loss(*lines, weight if weighted else None, clip=clip, c=C, p=P)
        close(loss, expected[0].detach(), dtype=dtype)
        close(squared, expected[1], dtype=dtype)
        plain, _ = _reference.weighted_residual_loss(*lines, torch.ones_like(r), clip=clip)
        (gradient,) = torch.autograd.grad(plain.sum(), lines[0])
        close(residual, gradient / 2, dtype=dtype)

    arrays = [u, v, derivative, r, t, weight if weighted else weight[:0]]
    shapes = [((rows, 1), dtype), ((rows, 1), dtype), ((rows, dof), dtype)]
    integers = [rows, dof, len(derivative)]
    return Call("weighted_residual_loss", dtype, integers, [clip, C, P], arrays, shapes, check)


def loss_backward_call(rows, dof, dtype, *, weighted):
    u, v, derivative, r, t, weight = losses(rows, dof, dtype)
    own = weight if weighted else None
    lines = (u.clone().requires_grad_(), v, derivative, r, t)
    loss, squared = _reference.weighted_residual_loss(*lines, own, c=C, p=P)
    plain, _ = _reference.weighted_residual_loss(*lines, torch.ones_like(r))
    (twice,) = torch.autograd.grad(plain.sum(), lines[0])
    cotangent = numbers(rows, 1, seed=3, dtype=dtype)

    def check(gradient):
        (expected,) = torch.autograd.grad(loss, lines[0], cotangent)
        close(gradient, expected, dtype=dtype)

    arrays = [cotangent, twice / 2, squared, weight if weighted else weight[:0]]
    return Call("weighted_residual_loss_backward", dtype, [rows, dof], [C, P], arrays, [((rows, dof), dtype)], check)


def robot_call(name, robot, dtype, integers, reals, arrays, out, check):
    chain = [*robot.lower, *robot.upper, *robot.chain.transforms().flatten().tolist()]
    kinds = [KIND_CODES[kind] for kind in robot.chain.kinds]
    return Call(name, dtype, [*integers, *kinds], [*chain, *reals], arrays, out, check)


def fk_call(rows, robot, dtype):
    q = joints(robot, rows, 0, dtype)

    def check(pose):
        close(pose, _reference.fk(robot, q.double()), dtype=dtype)

    return robot_call("fk", robot, dtype, [rows, robot.dof], [], [q], [((rows, 7), dtype)], check)


def jacobian_call(rows, robot, dtype):
    q = joints(robot, rows, 0, dtype)

    def check(jacobian):
        close(jacobian, _reference.jacobian(robot, q.double()), dtype=dtype)

    out = [((rows, 6, robot.dof), dtype)]
    return robot_call("jacobian", robot, dtype, [rows, robot.dof], [], [q], out, check)


def fk_error_call(rows, robot, dtype):
    q = joints(robot, rows, 0, dtype)
    pose = _reference.fk(robot, joints(robot, rows, 1, torch.float64)).to(dtype)

    def check(error, gradient):
        of = q.double().requires_grad_()
        mean = _reference.fk_error(robot, of, pose, rows)
        close(error.double().mean(), mean.detach(), dtype=dtype)
        (expected,) = torch.autograd.grad(mean, of)
        close(gradient, rows * expected, dtype=dtype)
        for i in {0, rows // 2, rows - 1}:
            close(error[i], _reference.fk_error(robot, q[i : i + 1].double(), pose[i : i + 1], 1), dtype=dtype)

    out = [((rows,), dtype), ((rows, robot.dof), dtype)]
    return robot_call(
        "fk_error", robot, dtype, [rows, robot.dof], [], [q, pose], out, check if rows else lambda *_: None
    )


def draw_batch_call(rows, robot, dtype):
    def check(*batch):
        expected = _reference.draw_batch(robot, rows, dtype=dtype, **times(rows))
        for name, value, reference in zip(ops.Batch._fields, batch, expected, strict=True):
            if name in ("q_target", "r", "t"):
                assert torch.equal(value, reference), name
            elif name == "target_pose":  # at qw = 0 the sign is a matter of rounding
                sign = (value[:, 3:] * reference[:, 3:]).sum(-1, keepdim=True).sign()
                close(value[:, :3], reference[:, :3], dtype=dtype)
                close(value[:, 3:], sign * reference[:, 3:], dtype=dtype)
            else:
                close(value, reference, dtype=dtype)

    out = batch_shapes(rows, robot.dof, dtype)
    integers = batch_integers(rows, robot.dof)
    return robot_call("draw_batch", robot, dtype, integers, [C, P], [torch.tensor([STEP])], out, check)


def problems(rows, robot, dtype, noise):
    """Starts and poses that can be reached; every tenth row cannot be used."""
    solution = joints(robot, rows, 1, torch.float64)
    q = solution + noise * numbers(rows, robot.dof, dtype=torch.float64)
    pose = _reference.fk(robot, solution)
    pose[:, 3:] *= -2.0
    bad = torch.arange(rows) % 10 == 9
    q[bad, 0] = torch.nan
    return q.to(dtype), pose.to(dtype), bad


def check_solved(robot, q, pose, bad, converged, tolerance, share):
    """Joints reach their poses as far as `converged` says, judged in float64."""
    assert q[bad].isnan().all() and not converged[bad].any()
    q, pose, converged = q[~bad].double(), pose[~bad].double(), converged[~bad]
    assert robot.within_limits(q).all()
    error = kinematics.pose_error(_reference.fk(robot, q), kinematics.normalize_pose(pose))
    position, rotation = error[:, :3].norm(dim=-1), error[:, 3:].norm(dim=-1)
    reached = (position <= tolerance * (1 - 1e-3)) & (rotation <= tolerance * (1 - 1e-3))
    near = (position <= tolerance * (1 + 1e-3)) & (rotation <= tolerance * (1 + 1e-3))
    assert (converged | ~reached).all() and (near | ~converged).all()
    assert converged.sum() >= share * len(q)
    return position, rotation


def refine_call(rows, robot, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    q, pose, bad = problems(rows, robot, dtype, noise=0.1)

    def check(got, converged, iterations):
        check_solved(robot, got, pose, bad, converged, tolerance, 0.9)
        expected = _reference.refine(robot, q, pose, max_iterations=20, tol_pos=tolerance, tol_rot=tolerance)
        assert (converged.sum() - expected.converged.sum()).abs() <= 0.05 * rows
        assert not iterations[bad].any() and (iterations <= 20).all()

    out = [((rows, robot.dof), dtype), ((rows,), torch.bool), ((rows,), torch.int32)]
    integers, reals = [rows, robot.dof, 20], [tolerance, tolerance]
    return robot_call("refine", robot, dtype, integers, reals, [q, pose], out, check)


def solve_call(rows, robot, dtype, num_seeds=12):
    q, pose, bad = problems(rows, robot, dtype, noise=1.0)
    seeds = joints(robot, num_seeds, 2, dtype)

    def check(got, position, rotation, converged, iterations, attempts):
        exact = check_solved(robot, got, pose, bad, converged, 1e-4, 0.9)
        for reported, judged in zip((position, rotation), exact, strict=True):
            assert reported[bad].isnan().all()
            close(reported[~bad], judged, dtype=dtype, single=1e-6, double=1e-9)
        assert not attempts[bad].any() and not iterations[bad].any()
        assert (attempts[~bad] >= 1).all() and (attempts[~bad & ~converged] == num_seeds + 1).all()
        # The CPU takes the same steps but for rounding; an attempt that hangs on that is rare.
        expected = ops.solve(robot, q, pose, seeds, max_iterations=12, tol_pos=1e-4, tol_rot=1e-4)
        assert (attempts != expected.attempts).sum() <= max(1, 0.03 * rows)

    out = [((rows, robot.dof), dtype), ((rows,), dtype), ((rows,), dtype), ((rows,), torch.bool)]
    out += [((rows,), torch.int32)] * 2
    integers, reals = [rows, robot.dof, 12, num_seeds], [1e-4, 1e-4]
    return robot_call("solve", robot, dtype, integers, reals, [q, pose, seeds], out, check)


def all_calls(sizes):
    """Every kernel in both types, for 6, 7, fewer and more joints, at every size."""
    for dtype in DTYPES:
        for rows in sizes:
            for name in ("ur10", "panda", "short", "mixed"):
                robot = robot_of(name)
                dof = robot.dof
                yield adaptive_weight_call(rows, dof, dtype)
                for indexed in (False, True):
                    yield sample_batch_call(rows, dof, dtype, indexed=indexed)
                for weighted in (False, True):
                    yield loss_call(rows, dof, dtype, weighted=weighted, clip=0.4 * weighted)
                    yield loss_backward_call(rows, dof, dtype, weighted=weighted)
                for call in (fk_call, jacobian_call, fk_error_call, draw_batch_call, refine_call, solve_call):
                    yield call(rows, robot, dtype)
