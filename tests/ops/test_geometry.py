"""The kernels of what network type v2 sees, against their PyTorch reference, through every kind of derivative."""

import pytest
import torch

from mfik import ops
from mfik.model.v2 import Geometry
from mfik.robots import load_robot

JOINT = """<joint name="j{i}" type="{kind}"><parent link="{i}"/><child link="{next}"/>
<origin xyz="0.{next} 0.{i} 0.2" rpy="0.{i} 0.3 0.{next}"/><axis xyz="0.2 0.5 0.8"/>
<limit lower="-1.5" upper="1.6" effort="1" velocity="1"/></joint>"""


@pytest.fixture(params=["panda", "ur10", "tiago", "rrpp", "prcp", "c"])
def robot(request, tmp_path, example_robots):
    """Return arms, and chains that begin or end with a slide: their azimuth depends on the joints."""
    kinds = {"r": "revolute", "p": "prismatic", "c": "continuous"}
    if request.param == "tiago":
        urdf = example_robots / "tiago_description" / "robots" / "tiago.urdf"
        return load_robot(urdf, "torso_fixed_link", "arm_tool_link")
    if request.param in ("panda", "ur10"):
        return load_robot(request.param)
    links = "".join(f'<link name="{i}"/>' for i in range(len(request.param) + 1))
    joints = "".join(JOINT.format(i=i, next=i + 1, kind=kinds[code]) for i, code in enumerate(request.param))
    path = tmp_path / "chain.urdf"
    path.write_text(f'<robot name="chain">{links}{joints}</robot>')
    return load_robot(path, "0", str(len(request.param)))


@pytest.fixture
def exact(robot):
    """Return the geometry with constants in float64, as the kernels have them."""
    return Geometry(robot, torch.float64)


def rows(robot, n, rng, dtype=torch.float64):
    """Return joints, some of every row at their limits, and poses."""
    q, pose = robot.sample(n, rng, torch.float64), robot.fk(robot.sample(n, rng, torch.float64))
    lower, upper = robot.limits()
    side = torch.randint(6, q.shape, generator=rng)
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    q = torch.where(limited & (side == 0), lower, torch.where(limited & (side == 1), upper, q))
    return q.to(dtype), pose.to(dtype)


def test_the_kernel_runs_where_it_exists(exact, robot, rng):
    q, pose = rows(robot, 3, rng)
    assert ops.has_geometry(q)
    assert "_Fused" in type(exact(q.requires_grad_(), pose)[0].grad_fn).__name__


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_values_and_gradients_are_those_of_the_reference(exact, robot, n, rng):
    q, pose = rows(robot, n, rng)
    weight = torch.randn(n, exact.size, generator=rng, dtype=torch.float64)
    results = []
    for function in (exact, exact.reference):
        joints = q.clone().requires_grad_()
        features, error2 = function(joints, pose)
        ((weight * features).sum() + error2.sum()).backward()
        results.append((features.detach(), error2.detach(), joints.grad))
    for kernel, reference in zip(*results, strict=True):
        torch.testing.assert_close(kernel, reference, rtol=1e-7, atol=1e-8)


def test_rows_in_float32_are_those_in_float64_rounded(robot, rng):
    geometry = Geometry(robot)
    q, pose = rows(robot, 500, rng, torch.float32)
    for single, double in zip(geometry(q, pose), geometry(q.double(), pose.double()), strict=True):
        assert single.dtype == torch.float32 and torch.equal(single, double.float())


def test_every_kind_of_derivative_agrees_with_finite_differences(exact, robot, rng):
    q, pose = rows(robot, 3, rng)

    def features(q, pose):
        return torch.cat(exact(q, pose), -1)

    assert torch.autograd.gradcheck(features, (q.requires_grad_(), pose), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradcheck(lambda p: features(q.detach(), p), (pose.requires_grad_(),), fast_mode=True)
    q, pose = q.detach(), pose.detach()
    backward = torch.func.jacrev(features)(q[:1], pose[:1])
    forward = torch.func.jacfwd(features)(q[:1], pose[:1])
    torch.testing.assert_close(backward, forward, rtol=1e-7, atol=1e-8)
    joints = q.clone().requires_grad_()
    (first,) = torch.autograd.grad(features(joints, pose).square().sum(), joints, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), joints)
    reference = q.clone().requires_grad_()
    (first,) = torch.autograd.grad(
        torch.cat(exact.reference(reference, pose), -1).square().sum(), reference, create_graph=True
    )
    torch.testing.assert_close(second, torch.autograd.grad(first.sum(), reference)[0], rtol=1e-6, atol=1e-7)


def test_mapped_over_rows_it_is_the_batch(exact, robot, rng):
    q, pose = rows(robot, 5, rng)
    mapped = torch.func.vmap(lambda a, b: exact(a[None], b[None]))(q, pose)
    for one, batch in zip(mapped, exact(q, pose), strict=True):
        torch.testing.assert_close(one[:, 0], batch, rtol=0, atol=0)
