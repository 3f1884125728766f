import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfik.errors import ArgumentError
from mfik.ops import _reference, weighted_residual_loss


def rows(batch, num_jvp, device="cpu", dtype=torch.float64, dof=7):
    """u, v, derivative of the first rows, r, t, weight."""
    generator = torch.Generator().manual_seed(batch)
    u, v, derivative = torch.randn(3, batch, dof, generator=generator, dtype=torch.float64)
    r, t, weight = torch.rand(3, batch, 1, generator=generator, dtype=torch.float64)
    values = (u, v, derivative[:num_jvp], 0.5 * r, 0.5 + 0.5 * t, weight + 0.1)
    return tuple(value.to(device, dtype) for value in values)


@pytest.mark.parametrize("dof", [1, 6, 7, 9])
@pytest.mark.parametrize(("batch", "num_jvp"), [(0, 0), (1, 0), (1, 1), (33, 8), (129, 129), (10_007, 2_500)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.4])
def test_kernel_matches_reference(native, device, dtype, tolerance, dof, batch, num_jvp, weighted, clip):
    values = list(rows(batch, num_jvp, device, dtype, dof))
    if not weighted:
        values[5] = None
    results = []
    for function in (weighted_residual_loss, _reference.weighted_residual_loss):
        u = values[0].clone().requires_grad_()
        loss, squared = function(u, *values[1:], clip=clip, c=1e-3, p=0.6)
        assert loss.shape == squared.shape == (batch, 1) and loss.dtype == dtype and not squared.requires_grad
        cotangent = torch.linspace(-1, 2, batch, device=device, dtype=dtype).unsqueeze(-1)
        results.append((loss.detach(), squared, *torch.autograd.grad(loss, u, cotangent)))
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, **tolerance)


@pytest.mark.parametrize("weighted", [False, True])
def test_is_the_formula(backend, device, dtype, tolerance, weighted):
    u, v, derivative, r, t, weight = rows(33, 12, device, dtype)
    loss, squared = weighted_residual_loss(u, v, derivative, r, t, weight if weighted else None, c=0.01, p=0.5)
    for i in range(33):
        target = v[i] + ((t[i] - r[i]) * derivative[i] if i < 12 else 0)
        expected = (u[i] - target).double().norm() ** 2
        w = weight[i, 0].double() if weighted else 1 / (expected + 0.01).sqrt()
        torch.testing.assert_close(squared[i, 0].double(), expected, rtol=tolerance["rtol"] * 10, atol=0)
        torch.testing.assert_close(loss[i, 0].double(), w * expected, rtol=tolerance["rtol"] * 10, atol=0)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_gradient_matches_finite_differences(backend, device, clip):
    values = rows(5, 3, device)
    torch.autograd.gradcheck(
        lambda u: weighted_residual_loss(u, *values[1:], clip=clip)[0], values[0].clone().requires_grad_()
    )


def test_own_weight_is_a_constant_to_the_gradient(backend, device):
    u, v, derivative, r, t, _ = rows(5, 3, device)
    u.requires_grad_()
    loss, squared = weighted_residual_loss(u, v, derivative, r, t, p=0.5, c=1e-2)
    frozen, _ = weighted_residual_loss(u, v, derivative, r, t, (squared + 1e-2).rsqrt())
    (ours,), (expected,) = torch.autograd.grad(loss.sum(), u), torch.autograd.grad(frozen.sum(), u)
    torch.testing.assert_close(ours, expected)


@given(clip=st.floats(1e-3, 10), scale=st.floats(0, 100))
def test_the_correction_is_bounded_by_the_velocity(clip, scale):
    _, v, derivative, r, t, weight = rows(9, 9)
    _, squared = weighted_residual_loss(v, v, scale * derivative, r, t, weight, clip=clip)  # u = v: the correction
    assert (squared.sqrt() <= clip * v.norm(dim=-1, keepdim=True) * (1 + 1e-12)).all()


def test_rows_that_stand_still_are_finite_when_clipped(backend, device):
    zero, one = torch.zeros(3, 7, device=device), torch.ones(3, 1, device=device)
    loss, _ = weighted_residual_loss(zero + 1, zero, zero, 0 * one, one, one, clip=1.0)
    torch.testing.assert_close(loss, 7 * one)


def test_accepts_strided_rows(backend, device, dtype, tolerance):
    values = rows(33, 33, device, dtype)
    strided = [value.t().contiguous().t() for value in values[:3]] + [torch.cat((x, x), 1)[:, :1] for x in values[3:]]
    assert not any(value.is_contiguous() for value in strided)
    for a, b in zip(weighted_residual_loss(*strided), weighted_residual_loss(*values), strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    u, dense = (x.clone(memory_format=torch.preserve_format).requires_grad_() for x in (strided[0], values[0]))
    (a,), (b,) = (
        torch.autograd.grad(weighted_residual_loss(x, *values[1:])[0].expand(33, 1).mean(), x) for x in (u, dense)
    )
    torch.testing.assert_close(a, b, **tolerance)


def test_nan_reaches_only_its_row(backend, device):
    u, *rest = rows(4, 2, device)
    u[1, 3] = torch.nan
    u.requires_grad_()
    loss, squared = weighted_residual_loss(u, *rest)
    (gradient,) = torch.autograd.grad(loss.sum(), u)
    for value in (loss, squared, gradient):
        assert value.isnan().any(-1).tolist() == [False, True, False, False]


def test_result_does_not_depend_on_the_number_of_threads(native, set_threads):
    values = rows(50_001, 20_000, dtype=torch.float32)
    results = []
    for threads in (1, 5):
        set_threads(threads)
        u = values[0].clone().requires_grad_()
        loss, squared = weighted_residual_loss(u, *values[1:])
        results.append((loss.detach(), squared, *torch.autograd.grad(loss.mean(), u)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_opcheck(native, device, dtype):
    u, v, derivative, r, t, weight = rows(33, 9, device, dtype)
    for w in (weight, None):
        args = (u.clone().requires_grad_(), v, derivative, r, t, w, 0.3, 1e-4, 0.5)
        torch.library.opcheck(torch.ops.mfik.weighted_residual_loss.default, args)
    torch.library.opcheck(torch.ops.mfik.weighted_residual_loss_backward.default, (r[:, :1], u, t, weight, 1e-4, 0.5))


@pytest.mark.parametrize("name", ["v", "derivative", "r", "t", "weight"])
def test_refuses_a_gradient_it_does_not_have(name):
    values = dict(zip(("u", "v", "derivative", "r", "t", "weight"), rows(3, 2), strict=True))
    values[name].requires_grad_()
    with pytest.raises(ArgumentError, match=f"{name}: expected no gradient, as weighted_residual_loss has none"):
        weighted_residual_loss(**values)


def test_refuses_a_forward_mode_tangent_rather_than_lose_it(backend):
    u, *rest = rows(3, 2)
    with pytest.raises(ArgumentError, match="u: expected no tangent"):
        torch.func.jvp(lambda u: weighted_residual_loss(u, *rest)[0], (u,), (torch.ones_like(u),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=torch.zeros(3)), r"u: expected \[N, J\], got \[3\]"),
        (dict(u=torch.zeros(3, 7).half()), "u: expected torch.float32 or torch.float64"),
        (dict(v=torch.zeros(3, 6)), r"v: expected \[3, 7\]"),
        (dict(v=torch.zeros(3, 7).float()), "v: expected torch.float64 on cpu like u"),
        (dict(derivative=torch.zeros(2, 6)), r"derivative: expected \[N, 7\], got \[2, 6\]"),
        (dict(derivative=torch.zeros(4, 7).double()), "derivative: expected at most 3 rows .* got 4"),
        (dict(r=torch.zeros(3).double()), r"r: expected \[3, 1\]"),
        (dict(t=torch.zeros(2, 1).double()), r"t: expected \[3, 1\]"),
        (dict(weight=torch.zeros(3, 7).double()), r"weight: expected \[3, 1\]"),
        (dict(weight=torch.zeros(3, 1, device="meta").double()), "weight: .* on meta"),
        (dict(clip=-1.0), "clip: .* got -1.0"),
        (dict(clip=float("nan")), "clip: .* got nan"),
        (dict(c=0.0), "c: expected a finite positive number"),
        (dict(p=-1.0), "p: "),
    ],
)
def test_bad_arguments_are_named(change, message):
    values = dict(zip(("u", "v", "derivative", "r", "t", "weight"), rows(3, 2), strict=True))
    with pytest.raises(ArgumentError, match=message):
        weighted_residual_loss(**{**values, **change})
