"""What TorchScript computes of one row by numbers, against the geometry's tensors."""

import pytest
import torch
from random_robot import random_robot

from mfik.export.numbers import Code, Geometry, limits_source
from mfik.model import v2
from mfik.robots import load_robot

KINDS = {"r": "revolute", "p": "prismatic", "c": "continuous"}
CHAINS = ("r", "p", "c", "rp", "pr", "ppp", "pppr", "rrrp", "prprrc", "rcrcrcrr")


@pytest.fixture(params=["panda", "ur10", *CHAINS])
def robot(request):
    """Return arms, and chains that begin or end with a slide: their azimuth depends on the joints."""
    if request.param in ("panda", "ur10"):
        return load_robot(request.param)
    return random_robot(*(KINDS[kind] for kind in request.param))


def test_numbers_are_the_geometry_s(robot, rng):
    geometry, unit = v2.Geometry(robot, torch.float64), torch.jit.CompilationUnit(Geometry(robot).source())
    q, pose = robot.sample(60, rng, torch.float64), robot.fk(robot.sample(60, rng, torch.float64))
    lower, upper = robot.limits()
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    side = torch.randint(4, q.shape, generator=rng)  # at a limit, some of them
    q = torch.where(limited & (side == 0), lower, torch.where(limited & (side == 1), upper, q))
    pose[:5] = robot.fk(q[:5])  # reached
    features, error2 = geometry.reference(q, pose)
    for row in range(len(q)):
        at, target = q[row].tolist(), unit.prepare((pose[row] * pose.new_tensor([1, 1, 1, -2, -2, -2, -2])).tolist())
        seen, ahead, squared = unit.look(at, target)
        *seen, one = seen
        assert one == 1
        torch.testing.assert_close(torch.tensor(seen, dtype=q.dtype), features[row], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.tensor(ahead, dtype=q.dtype), q[row] + features[row, -robot.dof :])
        assert squared == pytest.approx(error2[row].item(), rel=1e-9, abs=1e-18)
        assert unit.error2(at, target) == squared
        distance, angle = unit.errors(at, target)
        assert squared == pytest.approx((distance * Geometry(robot).scale) ** 2 + angle**2, rel=1e-9, abs=1e-18)


def test_joints_are_kept_and_moved_within_limits(robot, rng):
    lower, upper = robot.limits()
    endless = torch.tensor([kind == "continuous" for kind in robot.kinds])
    limits = lower.masked_fill(endless, -torch.inf), upper.masked_fill(endless, torch.inf)
    unit = torch.jit.CompilationUnit(limits_source(*(limit.tolist() for limit in limits)))
    starts = v2.Starts(*limits, 4).double()
    begun = robot.sample(20, rng, torch.float64)
    for shift in starts.shifts:
        for row, expected in zip(begun, starts(begun, shift), strict=True):
            moved = torch.tensor(unit.shifted(row.tolist(), shift.tolist()), dtype=row.dtype)
            torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)
    beyond = 3 * begun
    kept = torch.tensor([unit.limited(row.tolist()) for row in beyond], dtype=begun.dtype)
    torch.testing.assert_close(kept, beyond.clamp(*limits), rtol=0, atol=0)
    (nothing, *_) = unit.limited([float("nan")] * robot.dof)
    assert nothing != nothing, "what is no number stays none"


def test_code_is_what_is_not_known_before_and_stands_once():
    code = Code()
    a, b = code.unpack("at", 2)
    assert a * 0.0 == 0.0 and 0 * a == 0.0 and (a + 0.0) is a and (1.0 * a) is a and (a - 0) is a
    assert (a * b) is (a * b)
    assert code.function("f(at: List[float]) -> float", str(a * b + 0.5)).splitlines() == [
        "def f(at: List[float]) -> float:",
        "    v0 = at[0]",
        "    v1 = at[1]",
        "    v2 = v0 * v1",
        "    v3 = v2 + 0.5",
        "    return v3",
    ]
