"""The step that never waits for the host: its arithmetic on the CPU, its replay as a graph on CUDA."""

import pytest
import torch
from torch import nn

from mfik.data import FileSource, OnlineSource, StepRows, generate
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, meanflow_loss

TINY = ModelConfig(width=32, num_blocks=2, cond_dim=16, encoding="none")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def trainer(panda, device="cpu", model=TINY, **changes):
    torch.manual_seed(0)
    base = {"batch_size": 64, "warmup_steps": 2, "learning_rate": 1e-3, "log_interval": 5, "max_steps": 50}
    run = MeanFlowTrainer(MeanFlowNet(model), TrainConfig(**{**base, "device": device, **changes}), robot=panda)
    nn.init.normal_(run.model.head.weight, std=0.1)
    return run


@pytest.fixture(scope="module")
def data():
    return generate(load_robot("panda"), 700, coupling="local", seed=1)


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e6])
def test_takes_the_steps_of_plain_pytorch(panda, data, clip):
    """The same gradients, clipping, AdamW and averages as the textbook loop's, to rounding."""
    run, reference = (trainer(panda, gradient_clip=clip, ema_decay=0.9) for _ in range(2))
    model, config = reference.model, reference.config
    average = [p.detach().clone() for p in model.parameters()]
    for mine, theirs in zip(run.ema.module.parameters(), average, strict=True):
        mine.data.copy_(theirs)  # the head was drawn anew
    optimizer = torch.optim.AdamW(model.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    for step in range(6):
        rows = data[64 * step : 64 * step + 64]
        metrics = run.train_step(rows)
        reference.global_step = step
        optimizer.param_groups[0]["lr"] = reference._begin_step(64)
        sample = reference._sampler.training_sample(StepRows.of(rows), reference._sampler.phase(0))
        optimizer.zero_grad()
        output = meanflow_loss(model, *sample, config, panda)
        output.loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
        optimizer.step()
        for mean, p in zip(average, model.parameters(), strict=True):
            mean += 0.1 * (p.detach() - mean)
        run.global_step += 1
        assert metrics["loss"] == pytest.approx(output.loss.item(), rel=1e-4)
        assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    for mine, theirs, mean, expected in zip(
        run.model.parameters(), model.parameters(), run.ema.module.parameters(), average, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-5)


class NoScalars(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses what makes the host wait for a device: reading a number out of a tensor, shapes that depend on values."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        # A fused optimiser on the CPU reads its learning rate inside the operator, where no device is waited for.
        assert name not in self.FORBIDDEN, f"{func} makes the host wait"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"reference_noise": 0.1, "curriculum_steps": 20}, {"jvp_tangent": "predicted", "jvp_clip": 0.5},
        {"loss_weight_type": "error", "hard_ratio": 0.5}, {"gradient_clip": 0.0}, {"loss_type": "residual"},
        {"loss_type": "regression"},
        {"reflow_start": 1, "limit_loss_weight": 1.0},
    ],
)  # fmt: skip
def test_the_step_reads_nothing_back(panda, data, changes):
    run = trainer(panda, **changes)
    couplings = [OnlineSource(panda, 64, coupling=coupling, seed=0) for coupling in ("global", "local")]
    for source in (FileSource(data, 64, seed=0), *couplings):
        rows = source.batch(0)
        run._begin_step(64)
        run._advance(rows, run._sampler.phase(1))  # allocates the optimiser's state
        with NoScalars():
            run._begin_step(64)
            run._advance(rows, run._sampler.phase(1))


def test_the_guard_of_that_test_guards():
    with NoScalars(), pytest.raises(AssertionError, match="makes the host wait"):
        torch.ones(1).item()


def test_global_rows_are_drawn_in_the_step(panda):
    source = OnlineSource(panda, 64, coupling="global", seed=0, epoch_rows=640)
    assert not source.batch(3).tensors, "nothing of it is drawn before the step"
    runs = [trainer(panda, max_steps=10) for _ in range(2)]
    for run in runs:
        run.fit(source, source.validation_rows(100))
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(a, b)
    batch, num_jvp, num_endpoint = runs[0]._sampler.training_sample(source.batch(0), runs[0]._sampler.phase(0))
    assert batch.q.shape == (64, 7) and (num_jvp, num_endpoint) == (16, 13)
    error = (panda.fk(batch.q_target.double())[:, :3] - batch.target_pose[:, :3]).norm(dim=-1)
    assert error.max() < 1e-5


def graph_and_eager(panda, data, steps, **changes):
    """Losses of the same steps, replayed as a graph and launched one by one."""
    losses = {}
    for kind in ("graph", "eager"):
        run = trainer(panda, "cuda", max_steps=steps, log_interval=10**6, **changes)
        assert run._captured is not None, "built without the CUDA kernels"
        source = FileSource(data, 64, seed=0, device="cuda")
        kept = torch.empty(steps, device="cuda")
        for step in range(steps):
            rows = source.batch(step)
            run._begin_step(64)
            (run._captured if kind == "graph" else run._advance)(rows, run._sampler.phase(step))
            kept[step] = run._step._last[0]
            run.global_step += 1
        losses[kind] = kept.cpu()
        assert not run._step.bad_steps() and losses[kind].isfinite().all()
    return losses["graph"], losses["eager"]


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize(
    "changes",
    [
        {}, {"use_amp": False}, {"compile": False}, {"use_amp": False, "compile": False},
        {"compile": False, "curriculum_steps": 50, "reference_noise": 0.1},
    ],
)  # fmt: skip
def test_graph_and_eager_give_the_same_losses(panda, data, changes):
    graph, eager = graph_and_eager(panda, data, 100, **changes)
    # The same kernels on the same numbers; 1e-3 leaves room for another order of atomic sums.
    torch.testing.assert_close(graph, eager, rtol=1e-3, atol=1e-5)
    assert graph[-20:].mean() < graph[:20].mean()


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("coupling", ["global", "local"])
def test_the_loop_never_waits_on_cuda(panda, data, coupling):
    run = trainer(panda, "cuda", log_interval=10**6, compile=False)
    online = OnlineSource(panda, 64, coupling=coupling, seed=0, device="cuda", epoch_rows=6400)
    for step in range(20):
        rows = online.batch(step)
        if step == 10:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            run._begin_step(64)
            run._captured(rows, run._sampler.phase(0))
        finally:
            torch.cuda.set_sync_debug_mode("default") if step == 19 else None
        run.global_step += 1


@pytest.mark.cuda
@needs_cuda
def test_a_run_on_cuda_resumes_exactly(panda, data, tmp_path):
    def fit(run):
        return run.fit(FileSource(data.rows(0, 630), 64, seed=0, device="cuda"), data.rows(630, 700))

    whole, first, second = (trainer(panda, "cuda", compile=False, max_steps=30, save_interval=13) for _ in range(3))
    first.output_dir = tmp_path
    fit(whole), fit(first)
    second.resume(tmp_path / "checkpoints" / "checkpoint_step_13.pth")
    fit(second)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.cuda
@needs_cuda
def test_a_bad_step_is_skipped_inside_the_graph(panda, data):
    run = trainer(panda, "cuda", compile=False)
    columns = {name: value.cuda() for name, value in data[:128].items()}
    columns["q_target"][:64] = torch.nan
    bad, good = (
        StepRows.of({name: value[rows] for name, value in columns.items()}) for rows in (slice(64), slice(64, 128))
    )
    for step in range(12):
        before = [p.clone() for p in run.model.parameters()]
        run._begin_step(64)
        run._captured(bad if step == 8 else good, run._sampler.phase(0))
        unchanged = all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))
        assert unchanged == (step in (0, 8))  # the warm-up starts from a learning rate of 0
        run.global_step += 1
    assert run._step.bad_steps() == [8]


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_peak_memory_at_batch_256_is_under_the_documents_500_mb(panda, compiled):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    run = trainer(panda, "cuda", ModelConfig.panda_default(), batch_size=256, compile=compiled)
    source = OnlineSource(panda, 256, coupling="global", seed=0, device="cuda")
    for _ in range(8):
        run._begin_step(256)
        run._captured(source.batch(0), run._sampler.phase(0))
        run.global_step += 1
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - held < 500e6
