"""The trainer: the caller's own loop, whole runs, files, resuming, what it refuses."""

import time
from dataclasses import fields

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import TINY, config, fit, states_equal, trainer
from torch.utils.data import DataLoader

from mfik.data import generate
from mfik.errors import ArgumentError
from mfik.model.v1 import MeanFlowNet
from mfik.train.v1 import (
    MeanFlowTrainer,
    TrainConfig,
    load_checkpoint,
)


def test_defaults_are_the_documents():
    c = TrainConfig()
    assert (c.learning_rate, c.weight_decay, c.betas) == (1e-4, 1e-5, (0.9, 0.999))
    assert (c.warmup_steps, c.scheduler_type, c.min_lr) == (1000, "cosine", 1e-6)
    assert (c.batch_size, c.num_epochs, c.gradient_clip, c.use_amp) == (256, 100, 1.0, True)
    assert (c.loss_weight_type, c.adaptive_weight_c, c.adaptive_weight_p) == ("adaptive", 1e-4, 0.5)
    assert (TrainConfig.panda_default().robot, TrainConfig.ur10_default().robot) == ("panda", "ur10")
    TrainConfig.quick_test().validate()


def test_the_documents_loop_runs_as_written(data):
    train_config = TrainConfig.panda_default()
    train_config.num_epochs = 1
    train_config.device = "cpu"
    trainer = MeanFlowTrainer(model=MeanFlowNet(TINY), config=train_config)
    for _epoch in range(train_config.num_epochs):
        for batch in DataLoader(data, batch_size=256, shuffle=True):
            metrics = trainer.train_step(batch)
            trainer.global_step += 1
    assert trainer.global_step == 3
    assert set(metrics) == {"loss", "meanflow_residual", "velocity_norm", "fk_loss", "jvp_norm", "grad_norm", "lr"}
    assert metrics["lr"] == pytest.approx(2e-7)
    assert all(isinstance(value, float) for value in metrics.values())


def test_the_documents_words_around_the_loop_work(data, tmp_path):
    """A `DataParallel`, validation on a loader, and a checkpoint whenever the caller wants one."""
    with pytest.warns(RuntimeWarning, match="DataParallel is taken off.*torchrun"):
        run = MeanFlowTrainer(torch.nn.DataParallel(MeanFlowNet(TINY)), config(), output_dir=tmp_path)
    run.train_step(next(iter(DataLoader(data, batch_size=64))))
    by_loader = run.validate(DataLoader(data.rows(0, 100), batch_size=30))
    assert by_loader == run.validate(data.rows(0, 100))
    with pytest.raises(ArgumentError, match="at least one batch"):
        run.validate([])
    run.global_step = 3
    run.save()
    assert load_checkpoint(tmp_path / "checkpoints" / "checkpoint_step_3.pth")["global_step"] == 3
    with pytest.raises(ArgumentError, match="output_dir: expected a folder"):
        MeanFlowTrainer(MeanFlowNet(TINY), config()).save()


def test_a_run_writes_the_documented_files_and_tags(panda, data, tmp_path):
    run = trainer(panda, tmp_path, save_interval=10)
    metrics = fit(run, data)
    assert run.global_step == run.total_steps == 27 and run.samples_seen == 27 * 64
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {
        "best_model.pth", "final_model.pth", "checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth",
        "checkpoint_epoch_3.pth", "checkpoint_step_10.pth", "checkpoint_step_20.pth",
    }  # fmt: skip
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"train/{name}" for name in ("loss", "meanflow_residual", "velocity_norm", "grad_norm", "lr")} <= tags
    assert {
        "val/val_loss",
        "val/pos_mm_mean",
        "val/pos_mm_p50",
        "val/rot_deg_p95",
        "val/solved_0",
        "val/solved_3",
    } <= tags
    assert {"train/jvp_norm", "train/samples_per_s", "val/loss_r0", "val/loss_r3"} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == [5, 10, 15, 20, 25]
    assert events.Scalars("val/val_loss")[-1].value == pytest.approx(metrics["val_loss"])


@pytest.mark.parametrize("stop", [9, 13])  # between epochs, and inside one
def test_resuming_takes_exactly_the_same_steps(panda, data, tmp_path, stop):
    whole = trainer(panda)
    fit(whole, data)
    first = trainer(panda, tmp_path, save_interval=stop, keep_checkpoints=0)
    fit(first, data)
    second = trainer(panda)
    second.resume(tmp_path / "checkpoints" / f"checkpoint_step_{stop}.pth")
    assert second.global_step == stop
    fit(second, data)
    assert states_equal(whole.model.state_dict(), second.model.state_dict())
    assert states_equal(whole.ema.module.state_dict(), second.ema.module.state_dict())
    assert (whole.samples_seen, whole.best_val_loss) == (second.samples_seen, second.best_val_loss)


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_named(panda, device):
    if device == "cuda" and torch.cuda.is_available():
        device = "cuda:98"
    with pytest.raises(ArgumentError, match=rf"device: expected .*'{device}'"):
        trainer(panda, device=device)
    with pytest.raises(ArgumentError, match=rf"device: expected .*'{device}'"):
        generate(panda, 10, device=device)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("batch_size", 0),
        ("scheduler_type", "step"),
        ("loss_weight_type", "magic"),
        ("loss_type", "l1"),
        ("flow_matching_ratio", 1.5),
        ("ema_decay", 1.0),
        ("betas", (0.9, 1.0)),
        ("min_lr", -1.0),
    ],
)
def test_bad_settings_name_the_field(panda, field, value):
    with pytest.raises(ArgumentError, match=field):
        MeanFlowTrainer(MeanFlowNet(TINY), config(**{field: value}), robot=panda)


def test_bad_batches_and_models_are_named(panda, data):
    run = trainer(panda)
    with pytest.raises(ArgumentError, match="q_target"):
        run.train_step({"q": data.q, "target_pose": data.target_pose, "r": data.r})
    with pytest.raises(ArgumentError, match=r"\[B, 7\]"):
        run.train_step({**data[:8], "q": data.q[:8, :6]})
    with pytest.raises(ArgumentError, match="at least one row"):
        run.train_step(data[:0])
    with pytest.raises(ArgumentError, match="6 joints"):
        MeanFlowTrainer(MeanFlowNet(TINY), config(robot="ur10"))
    with pytest.raises(ArgumentError, match="batch_size"):
        fit(trainer(panda, batch_size=4096), data)


def test_optimiser_is_adamw_with_the_configured_numbers(panda):
    run = trainer(panda, learning_rate=3e-4, weight_decay=0.02, betas=(0.8, 0.95))
    assert type(run.optimizer) is torch.optim.AdamW
    group = run.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"]) == (0.02, (0.8, 0.95))
    run.train_step(generate(panda, 64, seed=3)[:])
    assert group["lr"] == 0.0  # the first step of the warm-up


def test_gradients_are_clipped_to_their_norm_and_reported_before(panda, data):
    free, clipped = trainer(panda, gradient_clip=0.0), trainer(panda, gradient_clip=0.01)
    norms = [run.train_step(data[:64])["grad_norm"] for run in (free, clipped)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) and norms[0] > 0.01
    total = torch.cat([p.grad.flatten() for p in clipped.model.parameters()]).norm()
    assert total.item() == pytest.approx(0.01, rel=1e-3)


# Another value of each field that has to leave another network behind, and of those that must not, with the reason.
CHANGES = {
    "learning_rate": 5e-4, "weight_decay": 0.5, "betas": (0.5, 0.9), "warmup_steps": 3, "scheduler_type": "linear",
    "min_lr": 5e-4, "batch_size": 32, "num_epochs": 2, "max_steps": 4, "gradient_clip": 1e-4, "loss_type": "residual",
    "loss_weight_type": "error", "adaptive_weight_c": 0.5, "adaptive_weight_p": 1.0, "flow_matching_ratio": 0.2,
    "endpoint_ratio": 1.0, "fk_loss_weight": 0.0, "limit_loss_weight": 100.0, "jvp_tangent": "predicted",
    "jvp_clip": 1e-3, "curriculum_steps": 10, "reflow_start": 2, "reference_noise": 0.1, "hard_ratio": 0.5,
    "ema_decay": 0.5, "seed": 7,
}  # fmt: skip
EXEMPT = {
    "robot": ("ur10", "names the robot for a trainer that is given none; here one is given"),
    "use_amp": (False, "mixed precision is for CUDA; the CPU trains in float32"),
    "compile": (False, "compiles on CUDA alone"),
    "collision_free": (True, "reflow and the source look at it: tests/train/test_reflow.py, tests/data"),
    "val_fraction": (0.5, "scripts/train.py splits a file by it before it makes the source"),
    "log_interval": (2, "when metrics are recorded"),
    "save_interval": (2, "when checkpoints are written"),
    "keep_checkpoints": (1, "how many checkpoints stay"),
    "best_by": ("success", "which network best_model.pth holds"),
    "patience": (2, "when a run ends that gets no better; this one does, each epoch"),
    "deterministic": (True, "a CPU is deterministic"),
    "wandb": (True, "where metrics go"),
    "max_bad_steps": (0, "when a run ends whose loss is not finite; all are finite here"),
    "device": ("cpu:0", "where the same run is computed"),
}


@pytest.fixture
def offline(monkeypatch):
    """Keep Weights & Biases on this machine."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def test_every_field_changes_the_run_it_configures(panda, data, tmp_path, offline):
    """A field that does nothing is a defect: all but the exempt ones have to leave another network behind."""
    assert set(CHANGES) | set(EXEMPT) == {field.name for field in fields(TrainConfig)}
    assert not set(CHANGES) & set(EXEMPT)

    def outcome(**changes):
        run = trainer(panda, tmp_path, **{"warmup_steps": 0, "num_epochs": 1, **changes})
        fit(run, data)
        return torch.cat([network.head.weight.detach() for network in (run.model, run.ema.module)])

    base = outcome()
    assert torch.equal(outcome(), base), "a run repeats itself"
    for name, value in CHANGES.items():
        assert not torch.equal(outcome(**{name: value}), base), name
    for name, (value, reason) in EXEMPT.items():
        assert getattr(config(), name) != value, f"{name}: this is what it is already"
        assert torch.equal(outcome(**{name: value}), base), f"{name} changes the run, although {reason}"


def test_records_of_steps_that_are_taken_again_are_withdrawn(panda, data, tmp_path):
    first = trainer(panda, tmp_path, save_interval=9, keep_checkpoints=0)
    fit(first, data)
    second = trainer(panda, tmp_path)
    second.resume(tmp_path / "checkpoints" / "checkpoint_step_9.pth")
    fit(second, data)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [5, 10, 15, 20, 25]
    assert [event.step for event in events.Scalars("val/val_loss")] == [9, 18, 27]


def rows_of(tmp_path):
    """The records of metrics.csv: values by step, by tag."""
    lines = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert lines[0] == ["step", "seconds", "tag", "value"]
    tags = {}
    for step, seconds, tag, value in lines[1:]:
        assert float(seconds) >= 0
        tags.setdefault(tag, {})[int(step)] = float(value)
    return tags


def test_metrics_csv_holds_what_tensorboard_has_also_after_resuming(panda, data, tmp_path):
    fit(trainer(panda, tmp_path, save_interval=9, keep_checkpoints=0), data)
    second = trainer(panda, tmp_path)
    second.resume(tmp_path / "checkpoints" / "checkpoint_step_9.pth")
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("30,1.0,train/lo")  # a line that a killed run did not finish
    fit(second, data)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    tags = rows_of(tmp_path)
    assert set(tags) == set(events.Tags()["scalars"])
    for tag, values in tags.items():
        assert values == pytest.approx({event.step: event.value for event in events.Scalars(tag)}, rel=1e-5), tag


def test_phases_are_recorded_where_there_are_any(panda, data, tmp_path):
    fit(trainer(panda, tmp_path / "plain"), data)
    plain = rows_of(tmp_path / "plain")
    extra = {"train/curriculum_reach", "train/reflow_accepted", "train/mined_share"}
    assert not extra & set(plain)
    fit(trainer(panda, tmp_path / "all", curriculum_steps=20, reflow_start=12, hard_ratio=0.25), data)
    tags = rows_of(tmp_path / "all")
    assert tags["train/curriculum_reach"] == pytest.approx({5: 0.25, 10: 0.5, 15: 0.75, 20: 1.0, 25: 1.0})
    accepted, mined = tags["train/reflow_accepted"], tags["train/mined_share"]
    assert accepted[10] == 0 and 0.1 < accepted[15] <= 1
    assert all(0.25 < share <= 1 for share in mined.values()), "the largest quarter has more than its part"


class Scripted:
    """Validation results in a row, instead of measured ones."""

    def __init__(self, results):
        self.results = iter(results)

    def __call__(self, val):
        loss, success = next(self.results)
        return {"val_loss": loss, "pos_mm_mean": 0.0, "rot_deg_mean": 0.0, "solved_3": 0.0, "solved_10": success}


def test_best_by_success_keeps_the_network_that_solves_most(panda, data, tmp_path, monkeypatch):
    for best_by, step in (("loss", 9), ("success", 18)):
        run = trainer(panda, tmp_path / best_by, best_by=best_by)
        monkeypatch.setattr(run, "validate", Scripted([(1.0, 0.3), (2.0, 0.5), (3.0, 0.4)]))  # as under reflow
        fit(run, data)
        assert load_checkpoint(tmp_path / best_by / "checkpoints" / "best_model.pth")["global_step"] == step
    assert TrainConfig().best_by == "loss", "the document's"


def test_a_run_that_gets_no_better_ends_early_also_when_resumed(panda, data, tmp_path, monkeypatch):
    results = [(3.0, 0.1), (2.0, 0.2), (2.5, 0.2), (2.1, 0.1), (1.0, 0.9)]
    run = trainer(panda, tmp_path, num_epochs=10, patience=2)
    monkeypatch.setattr(run, "validate", Scripted(results))
    fit(run, data)
    assert run.global_step == 4 * 9 and not run.interrupted
    assert load_checkpoint(tmp_path / "checkpoints" / "final_model.pth")["global_step"] == 36
    second = trainer(panda, num_epochs=10, patience=2)
    second.resume(tmp_path / "checkpoints" / "checkpoint_epoch_3.pth")
    monkeypatch.setattr(second, "validate", Scripted(results[3:]))
    fit(second, data)
    assert second.global_step == 36
    third = trainer(panda, num_epochs=10, patience=2)
    third.resume(tmp_path / "checkpoints" / "final_model.pth")
    fit(third, data)
    assert third.global_step == 36, "it has ended"


def test_deterministic_runs_take_deterministic_algorithms_alone(panda, data):
    try:
        run = trainer(panda, deterministic=True, num_epochs=1, curriculum_steps=3, reflow_start=5, hard_ratio=0.5)
        assert torch.are_deterministic_algorithms_enabled()
        fit(run, data)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_wandb_gets_every_metric_offline(panda, data, tmp_path, offline):
    pytest.importorskip("wandb", reason="needs `pip install 'mfik[wandb]'`")
    run = trainer(panda, tmp_path, wandb=True, num_epochs=1)
    fit(run, data)
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert run.run in record.parent.name, "a run that is continued is the same one there"
    tags = [tag.encode() for tag in (*rows_of(tmp_path), "learning_rate")]
    deadline = time.monotonic() + 60
    while (missing := [tag for tag in tags if tag not in record.read_bytes()]) and time.monotonic() < deadline:
        time.sleep(0.1)  # a process of wandb's own writes it
    assert not missing


def test_wandb_without_a_login_is_named(panda, data, tmp_path, offline, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs `pip install 'mfik[wandb]'`")

    def refused(**_):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refused)
    with pytest.raises(ArgumentError, match=r"wandb: .*No API key.*WANDB_MODE=offline"):
        fit(trainer(panda, tmp_path, wandb=True), data)


def test_wandb_that_is_not_installed_is_named(panda, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"wandb: .*pip install 'mfik\[wandb\]'"):
        trainer(panda, wandb=True)
