import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfik.errors import ArgumentError
from mfik.ops import _reference, adaptive_weight


def draw(batch, device, dtype, dof=7):
    q, q_target = torch.randn(2, batch, dof, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return q.to(device, dtype), q_target.to(device, dtype)


@pytest.mark.parametrize("batch", [0, 1, 33, 10007])
@pytest.mark.parametrize("p", [0.5, 0.0, 0.8])
def test_is_the_formula(backend, device, dtype, tolerance, batch, p):
    q, q_target = draw(batch, device, dtype)
    weight = adaptive_weight(q, q_target, 1e-3, p)
    assert weight.shape == (batch, 1) and weight.dtype == dtype and weight.device == q.device
    expected = 1.0 / ((q_target.double() - q.double()).norm(dim=-1, keepdim=True) ** 2 + 1e-3) ** p
    torch.testing.assert_close(weight, expected.to(dtype), **tolerance)
    torch.testing.assert_close(weight, _reference.adaptive_weight(q, q_target, 1e-3, p), **tolerance)


@given(c=st.floats(1e-6, 1e3), p=st.floats(0, 2), scale=st.floats(0, 100))
def test_is_positive_and_bounded_by_its_value_at_distance_0(c, p, scale):
    q, q_target = draw(5, "cpu", torch.float64)
    weight = adaptive_weight(q, q + scale * (q_target - q), c, p)
    assert (weight > 0).all() and (weight <= c**-p * (1 + 1e-12)).all()


def test_accepts_strided_rows(backend, device, dtype, tolerance):
    q, q_target = draw(33, device, dtype)
    strided = torch.stack([q_target, q], dim=-1)[..., 1]
    transposed = q_target.t().contiguous().t()
    assert not strided.is_contiguous() and not transposed.is_contiguous()
    torch.testing.assert_close(adaptive_weight(strided, transposed), adaptive_weight(q, q_target), **tolerance)


def test_is_a_constant_to_autograd(backend, device):
    q, q_target = draw(4, device, torch.float32)
    assert not adaptive_weight(q.requires_grad_(), q_target.requires_grad_()).requires_grad
    _, tangent = torch.func.jvp(lambda x: adaptive_weight(x, q_target), (q.detach(),), (torch.ones_like(q),))
    assert not tangent.any()


def test_nan_reaches_only_its_row(backend, device):
    q, q_target = draw(3, device, torch.float32)
    q[1, 2] = torch.nan
    assert adaptive_weight(q, q_target).isnan().flatten().tolist() == [False, True, False]


def test_result_does_not_depend_on_the_number_of_threads(native, set_threads):
    q, q_target = draw(50_001, "cpu", torch.float32)
    set_threads(1)
    one = adaptive_weight(q, q_target)
    set_threads(5)
    assert torch.equal(adaptive_weight(q, q_target), one)


def test_opcheck(native, device, dtype):
    torch.library.opcheck(torch.ops.mfik.adaptive_weight.default, (*draw(33, device, dtype), 1e-4, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(q=[[0.0] * 7] * 3), "q: expected a tensor"),
        (dict(q=torch.zeros(7)), r"q: expected \[N, J\], got \[7\]"),
        (dict(q=torch.zeros(3, 7, dtype=torch.int64)), "q: expected torch.float32 or torch.float64, got torch.int64"),
        (dict(q=torch.zeros(3, 7, dtype=torch.float16)), "q: expected torch.float32 or torch.float64"),
        (dict(q_target=torch.zeros(3, 6)), r"q_target: expected \[3, 7\] to go with q .* got \[3, 6\]"),
        (dict(q_target=torch.zeros(2, 7)), r"q_target: expected \[3, 7\]"),
        (
            dict(q_target=torch.zeros(3, 7).double()),
            "q_target: expected torch.float32 on cpu like q, got torch.float64",
        ),
        (dict(q_target=torch.zeros(3, 7, device="meta")), "q_target: .* got torch.float32 on meta"),
        (dict(c=0.0), "c: expected a finite positive number, got 0.0"),
        (dict(c=float("nan")), "c: .* got nan"),
        (dict(c=1e-50), "c: .* got 1e-50"),  # 0 in float32
        (dict(p=float("nan")), "p: .* got nan"),
        (dict(p=-1.0), "p: .* got -1.0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ArgumentError, match=message):
        adaptive_weight(**{**dict(q=torch.zeros(3, 7), q_target=torch.zeros(3, 7)), **change})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present: the launch would succeed")
def test_a_failed_cuda_launch_is_an_error_and_an_empty_one_is_not(native):
    if not native.has_cuda:
        pytest.skip("built without CUDA")
    native.adaptive_weight_cuda(False, 0, 0, 0, 0, 7, 1e-4, 0.5, 0)
    with pytest.raises(RuntimeError, match="adaptive_weight: .*CUDA"):
        native.adaptive_weight_cuda(False, 0, 0, 0, 1, 7, 1e-4, 0.5, 0)
