"""Training on a device that is not there: every step, as it is launched and as it is captured and replayed."""

import itertools

import pytest
import torch
from device import FakeCuda
from torch import nn

from mfik.data import FileSource, OnlineSource, generate
from mfik.data.generate import COUPLINGS
from mfik.model import v1, v2
from mfik.robots import load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig
from mfik.train.v1 import step as step_module

BATCH = 16
BLOCK = 4  # steps whose rows are drawn at once
SIZES = {
    "v1": v1.ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none"),
    "v2": v2.ModelConfig(width=16, num_blocks=1, passes=1, training_passes=2, starts=1),
}
PANDA = load_robot("panda")
DATA = generate(PANDA, 100, coupling="local", seed=1)
KINDS = ("file", "global", "local")  # the three kinds of rows that a step takes: indices, none, columns


def network(name):
    torch.manual_seed(0)
    model = v1.MeanFlowNet(SIZES[name]) if name == "v1" else v2.MeanFlowNet(SIZES[name], PANDA)
    nn.init.normal_(model.head.weight, std=0.1)
    return model


def trainer(name, device, **changes):
    base = {"batch_size": BATCH, "warmup_steps": 1, "learning_rate": 1e-3, "max_steps": 50, "flow_matching_ratio": 0.5}
    return MeanFlowTrainer(network(name), TrainConfig(**{**base, "device": device, **changes}), PANDA)


def make_source(kind, device):
    if kind == "file":
        return FileSource(DATA, BATCH, seed=0, device=device)
    return OnlineSource(PANDA, BATCH, coupling=kind, seed=0, device=device, epoch_rows=160)


def take_steps(run, advance, source, steps, first=0):
    """Return the losses of steps, on the device."""
    losses = torch.empty(steps, device=run.device)
    for number in range(steps):
        rows = source.batch(first + number)
        run._begin_step(rows.size)
        advance(rows, run._sampler.phase(1))
        losses[number] = run._step._last[0]
        run.global_step += 1
    return losses


@pytest.fixture(autouse=True)
def short_warmup(monkeypatch):
    monkeypatch.setattr(step_module, "_WARMUP_STEPS", 1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("mfik.data.source._GPU_BLOCK_ROWS", BLOCK * BATCH)
    monkeypatch.setattr("mfik.data.source._CPU_BLOCK_ROWS", BLOCK * BATCH)


def check_steps(name, kind, amp, **changes):
    """Take a step launch by launch, and one that is captured and replayed; in float32 hold both to the CPU's."""
    with FakeCuda(bf16=amp != "float16") as cuda:
        run = trainer(name, "cuda", use_amp=amp != "float32", **changes)
        assert run._captured is not None, "no captured step on CUDA"
        source = make_source(kind, "cuda")
        losses = take_steps(run, run._captured, source, 1)  # brings constants to the device
        cuda.waits.clear()
        losses = torch.cat((losses, take_steps(run, run._captured, source, 1, first=1)))
        assert not cuda.waits
        assert [graph.replays for graph in cuda.graphs] == [1]
        assert not run._step.bad_steps()
        losses = losses.tolist()
    if amp == "float32":
        run = trainer(name, "cpu", **changes)
        expected = take_steps(run, run._advance, make_source(kind, "cpu"), 2).tolist()
        # The residual is a derivative, of which targets that refinement ends at within 1e-4 take another last digit.
        rough = changes.get("loss_type") == "residual" and changes.get("reflow_start")
        assert losses == pytest.approx(expected, rel=1e-3 if rough else 1e-4)


EVERY = tuple(
    itertools.product(SIZES, ("meanflow", "residual", "regression"), ("float32", "bfloat16", "float16"), (0, 1), KINDS)
)


@pytest.mark.parametrize(("name", "loss", "amp", "reflow", "kind"), EVERY)
def test_a_step_is_launched_captured_and_replayed(name, loss, amp, reflow, kind):
    check_steps(name, kind, amp, loss_type=loss, reflow_start=reflow)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("v1", {"jvp_tangent": "predicted"}), ("v1", {"jvp_clip": 0.3}), ("v1", {"loss_weight_type": "error"}),
        ("v1", {"loss_weight_type": "uniform"}), ("v1", {"hard_ratio": 0.5}), ("v1", {"curriculum_steps": 20}),
        ("v1", {"reference_noise": 0.1}), ("v1", {"limit_loss_weight": 1.0}), ("v1", {"gradient_clip": 0.0}),
        ("v1", {"fk_loss_weight": 0.0}), ("v1", {"flow_matching_ratio": 1.0}), ("v1", {"endpoint_ratio": 0.0}),
        ("v2", {"jvp_tangent": "predicted", "jvp_clip": 0.3, "limit_loss_weight": 1.0, "hard_ratio": 0.5}),
        ("v2", {"loss_weight_type": "error", "curriculum_steps": 20, "reference_noise": 0.1}),
        ("v2", {"loss_weight_type": "uniform", "flow_matching_ratio": 1.0, "fk_loss_weight": 0.0}),
    ],
    ids=str,
)  # fmt: skip
def test_a_step_with_other_settings(name, changes):
    check_steps(name, "file", "float32", **changes)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_rows_of_every_coupling_are_drawn_on_the_device(coupling):
    """The same as on the CPU; between two blocks the host waits for nothing, nor for rows drawn in the step."""
    with FakeCuda() as cuda:
        source, waits = make_source(coupling, "cuda"), []
        rows = []
        for number in range(2 * BLOCK + 1):
            cuda.waits.clear()
            rows.append(source.batch(number))
            assert all("OnlineSource._draw" in wait.functions for wait in cuda.waits)
            waits.append(bool(cuda.waits))
        assert waits == [coupling != "global" and number % BLOCK == 0 for number in range(2 * BLOCK + 1)]
        batches = [draw(step_rows, number, "cuda") for number, step_rows in enumerate(rows)]
        batches = [[column.cpu() for column in batch] for batch in batches]
    on_cpu = make_source(coupling, "cpu")
    for number, batch in enumerate(batches):
        for column, expected in zip(batch, draw(on_cpu.batch(number), number, "cpu"), strict=True):
            assert torch.equal(column, expected)


def draw(rows, number, device):
    step = torch.full((1,), number, device=device)
    return rows.draw(seed=0, step=step, rank=0, num_jvp=4, num_endpoint=2, c=1e-4, p=0.5)


# Where `MeanFlowTrainer.fit` waits, and nowhere else.
WAITS = (
    "TrainingStep.bad_steps", "TrainingStep.mean_metrics", "MeanFlowTrainer._phase_metrics", "MeanFlowTrainer.validate",
    "MeanFlowTrainer.save", "FileSource.batch", "OnlineSource._draw",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "local"])
def test_a_run_waits_where_it_says_and_ends_as_on_the_cpu(kind, tmp_path):
    """Of v1; as_cuda_fit.py has a run of v2."""
    metrics, settings = {}, dict(log_interval=3, save_interval=5, max_steps=7, reference_noise=0.1, patience=3)
    with FakeCuda() as cuda:
        run = trainer("v1", "cuda", use_amp=False, **settings)
        run.output_dir = tmp_path
        source = make_source(kind, "cuda")
        cuda.waits.clear()
        metrics["cuda"] = run.fit(source, DATA.rows(90, 100))
        assert cuda.waits
        odd = [w for w in cuda.waits if not set(WAITS) & set(w.functions)]
        # Constants come to the device in the first step.
        assert all(w.operator == "_to_copy" and "Robot.limits" in w.functions for w in odd), odd
        assert sum(g.replays for g in cuda.graphs) == 6 and not run.bad_steps
        again = trainer("v1", "cuda", use_amp=False, **settings)
        again.resume(tmp_path / "checkpoints" / "checkpoint_step_5.pth")
        again.fit(make_source(kind, "cuda"), DATA.rows(90, 100))
        for (key, value), other in zip(run.model.state_dict().items(), again.model.state_dict().values(), strict=True):
            assert torch.equal(value.cpu(), other.cpu()), key
    run = trainer("v1", "cpu", **settings)
    metrics["cpu"] = run.fit(make_source(kind, "cpu"), DATA.rows(90, 100))
    assert metrics["cuda"] == pytest.approx(metrics["cpu"], rel=1e-3, abs=1e-5)
