"""The network's hand-written derivative along a trajectory, against torch.func.jvp and finite differences."""

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from programs import python

from mfik import ops
from mfik.data import generate
from mfik.model.v1 import ENCODINGS, MeanFlowNet, ModelConfig
from mfik.train.v1 import TrainConfig, meanflow_loss
from mfik.train.v1.loss import VelocityAndDerivative, total_derivative

ROOT = Path(__file__).resolve().parents[2]


def random_net(dtype=torch.float64, **settings):
    """A network in which every weight matters: the head is not zero, the norms are not the identity."""
    torch.manual_seed(0)
    config = {"dof": 6, "width": 24, "num_blocks": 2, "cond_dim": 8, "encoding_dim": 8, **settings}
    model = MeanFlowNet(ModelConfig(**config)).to(dtype)
    for name, parameter in model.named_parameters():
        if "norm" in name or "head" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return model


def inputs(batch, rng, dtype=torch.float64):
    """q, target_pose with quaternions of both signs, r, t, v."""
    q = torch.randn(batch, 6, generator=rng, dtype=dtype)
    quat = torch.nn.functional.normalize(torch.randn(batch, 4, generator=rng, dtype=dtype), dim=-1)
    quat[::2] = torch.where(quat[::2, :1] < 0, quat[::2], -quat[::2])  # every second one has qw < 0
    pose = torch.cat((torch.randn(batch, 3, generator=rng, dtype=dtype), quat), dim=-1)
    r = 0.5 * torch.rand(batch, 1, generator=rng, dtype=dtype)
    return q, pose, r, r + 0.4, torch.randn(batch, 6, generator=rng, dtype=dtype)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("batch", "num_jvp"), [(0, 0), (1, 0), (1, 1), (33, 0), (33, 1), (33, 8), (33, 32), (33, 33)])
def test_derivative_matches_func_jvp(encoding, batch, num_jvp, rng):
    model = random_net(encoding=encoding)
    q, pose, r, t, v = inputs(batch, rng)
    u, derivative = model.forward_with_tangent(q, pose, r, t, v[:num_jvp])
    assert u.requires_grad and not derivative.requires_grad
    assert torch.equal(u, model(q, pose, r, t))
    _, expected = total_derivative(model, *(rows[:num_jvp] for rows in (q, pose, r, t, v)))
    assert derivative.shape == (num_jvp, 6)
    torch.testing.assert_close(derivative, expected, rtol=1e-11, atol=1e-11)  # float64 rounding, values up to 30


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_derivative_matches_finite_differences(encoding, rng):
    model = random_net(encoding=encoding)
    q, pose, r, t, v = inputs(17, rng)
    _, derivative = model.forward_with_tangent(q, pose, r, t, v)
    h = 1e-6
    with torch.no_grad():
        plus, minus = (model(q + s * h * v, pose, r + s * h, t) for s in (1, -1))
    assert derivative.norm(dim=-1).min() > 0.1  # a tangent that is zero would pass a relative test
    torch.testing.assert_close(derivative, (plus - minus) / (2 * h), rtol=1e-6, atol=1e-7)  # h^2 and eps / h


def test_derivative_is_exact_where_the_epsilon_of_layer_norm_counts(rng):
    model = random_net()
    with torch.no_grad():
        model.input.weight.mul_(1e-3)  # variance far below the 1e-5 that LayerNorm adds
        model.input.bias.zero_()
    q, pose, r, t, v = inputs(9, rng)
    _, derivative = model.forward_with_tangent(q, pose, r, t, v)
    _, expected = total_derivative(model, q, pose, r, t, v)
    torch.testing.assert_close(derivative, expected, rtol=1e-11, atol=1e-11)


def test_float32_derivative_is_as_good_as_func_jvp(rng):
    model = random_net()
    rows = inputs(65, rng)
    _, exact = total_derivative(model, *rows)
    model.float()
    rows = [tensor.float() for tensor in rows]
    _, derivative = model.forward_with_tangent(*rows)
    _, reference = total_derivative(model, *rows)
    assert (derivative - exact).abs().max() < 3 * (reference - exact).abs().max()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradient_is_the_ordinary_forwards(encoding, rng):
    model = random_net(encoding=encoding)
    q, pose, r, t, v = inputs(33, rng)
    cotangent = torch.randn(33, 6, generator=rng, dtype=torch.float64)
    parameters = list(model.parameters())
    ours = torch.autograd.grad((model.forward_with_tangent(q, pose, r, t, v[:8])[0] * cotangent).sum(), parameters)
    ordinary = torch.autograd.grad((model(q, pose, r, t) * cotangent).sum(), parameters)
    for a, b in zip(ours, ordinary, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_value_and_derivative_share_the_dropout_mask(rng):
    model = random_net(dropout=0.4).train()
    q, pose, r, t, v = inputs(17, rng)

    def seeded(function, *args):
        torch.manual_seed(3)
        return function(*args)

    u, derivative = seeded(model.forward_with_tangent, q, pose, r, t, v)
    assert torch.equal(u, seeded(model, q, pose, r, t))
    assert not torch.equal(u, model.eval()(q, pose, r, t))
    model.train()
    h = 1e-6
    with torch.no_grad():
        plus, minus = (seeded(model, q + s * h * v, pose, r + s * h, t) for s in (1, -1))
    torch.testing.assert_close(derivative, (plus - minus) / (2 * h), rtol=1e-6, atol=1e-7)


class Plain(torch.nn.Module):
    """A model that offers `forward` only."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, q, target_pose, r, t):
        return self.model(q, target_pose, r, t)


@pytest.mark.parametrize("num_jvp", [0, 1, 16, 64])
def test_loss_and_gradient_are_those_of_a_model_without_the_fast_pass(panda, num_jvp):
    data = generate(panda, 64, coupling="local", seed=3)
    batch = ops.sample_batch(
        data.q, data.target_pose, data.q_target, data.r, seed=0, step=0, num_jvp=num_jvp, num_endpoint=num_jvp // 2
    )
    model = random_net(torch.float32, dof=7)
    parameters = list(model.parameters())
    config = TrainConfig()
    fast = meanflow_loss(model, batch, num_jvp, num_jvp // 2, config, panda)
    slow = meanflow_loss(Plain(model), batch, num_jvp, num_jvp // 2, config, panda)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    gradients = (torch.autograd.grad(output.loss, parameters) for output in (fast, slow))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


# ||error|| / ||value|| over the rows. bfloat16 keeps 8 bits, 0.4 % a rounding, of which a row collects some ten; seen
# on the CPU: 0.6 % of u, 0.8 % of D. float16 keeps 11 bits. float64: h^2 and eps / h of the finite differences.
TANGENT_TOLERANCE = {torch.float64: 1e-8, torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def check_tangent(precision, compiled, device="cpu"):
    """Hold u, D and the gradient of what the trainer evaluates to float64 values and finite differences."""
    generator = torch.Generator().manual_seed(0)
    exact = random_net()
    q, pose, r, t, v = inputs(33, generator)
    h = 1e-6
    with torch.no_grad():
        plus, minus = (exact(q + s * h * v, pose, r + s * h, t) for s in (1, -1))
    cotangent = torch.randn(33, 6, generator=generator, dtype=torch.float64)
    u_exact = exact(q, pose, r, t)
    gradient_exact = torch.autograd.grad((u_exact * cotangent).sum(), list(exact.parameters()))
    expected = [u_exact, ((plus - minus) / (2 * h))[:20], torch.cat([g.flatten() for g in gradient_exact])]

    mixed = precision in (torch.bfloat16, torch.float16)
    dtype = torch.float32 if mixed else precision
    model = copy.deepcopy(exact).to(device, dtype)
    evaluate = VelocityAndDerivative(model)
    if compiled:
        evaluate.compile(dynamic=False)
    q, pose, r, t, v, cotangent = (x.to(device, dtype) for x in (q, pose, r, t, v, cotangent))
    with torch.autocast(device, dtype=precision if mixed else torch.bfloat16, enabled=mixed):
        u, derivative = evaluate(ops.Batch(q, pose, q, r, t, v, r), v[:20])
    assert u.dtype == derivative.dtype == dtype and not derivative.requires_grad
    gradient = torch.autograd.grad((u * cotangent).sum(), list(model.parameters()))
    got = [u, derivative, torch.cat([g.flatten() for g in gradient])]
    for value, reference in zip(got, expected, strict=True):
        error = (value.detach().double().cpu() - reference.detach()).norm() / reference.detach().norm()
        assert error < TANGENT_TOLERANCE[precision], error
        if mixed:
            assert error > 1e-4, "nothing was rounded"


@pytest.mark.parametrize("precision", TANGENT_TOLERANCE)
def test_eager_tangents_are_right_in_every_precision(precision):
    check_tangent(precision, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_compiled_tangents_are_right(precision):
    check_tangent(precision, compiled=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", TANGENT_TOLERANCE)
def test_tangents_are_right_on_cuda(precision, compiled):
    check_tangent(precision, compiled, "cuda")


def test_benchmark_writes_its_report(tmp_path):
    command = ["--preset", "tiny", "--batch", "64", "--repeats", "2", "--json", str(tmp_path / "report.json")]
    out = subprocess.run(
        [python(), str(ROOT / "benchmarks" / "train_step.py"), *command],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    assert "| tiny | 64 |" in out.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"command", "commit", "hardware", "torch", "results"} <= set(report)
    for row in (report, *report["results"]):
        assert row["samples_per_s"] > 0
        assert row["speedup_vs_plain"] == pytest.approx(row["samples_per_s"] / row["plain_samples_per_s"])
        overhead = row["flow_matching_samples_per_s"] / row["samples_per_s"] - 1
        assert row["jvp_overhead"] == pytest.approx(overhead)


def test_kernel_benchmark_writes_its_report(tmp_path):
    command = ["--rows", "2000", "--repeats", "2", "--json", str(tmp_path / "report.json")]
    out = subprocess.run(
        [python(), str(ROOT / "benchmarks" / "kernels.py"), *command],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"command", "commit", "hardware", "torch", "copy_bandwidth", "results"} <= set(report)
    for row in report["results"]:
        assert f"| {row['kernel']} |" in out.stdout and row["seconds"] > 0
        assert row["speedup_vs_plain"] == pytest.approx(row["plain_seconds"] / row["seconds"])
        if row["bytes_moved"]:
            copy = row["bytes_moved"] / report["copy_bandwidth"]
            floor = max(copy, row["operations"] / report["arithmetic_rate"])
            assert row["share_of_copy_bandwidth"] == pytest.approx(copy / row["seconds"])
            assert row["share_of_floor"] == pytest.approx(floor / row["seconds"])
    assert {"fk", "jacobian", "refine, 4 steps"} <= {row["kernel"] for row in report["results"]}
