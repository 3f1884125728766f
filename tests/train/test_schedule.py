"""Learning-rate schedules at their corners."""

import time

import pytest
import torch

from mfik.data import OnlineSource
from mfik.errors import ArgumentError
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, learning_rate


def test_warmup_rises_linearly_from_zero():
    config = TrainConfig()
    assert learning_rate(config, 0, 10_000) == 0.0
    assert learning_rate(config, 500, 10_000) == pytest.approx(0.5e-4)
    assert learning_rate(config, 1000, 10_000) == pytest.approx(1e-4)


@pytest.mark.parametrize(("kind", "middle"), [("cosine", (1e-4 + 1e-6) / 2), ("linear", (1e-4 + 1e-6) / 2)])
def test_decay_ends_at_min_lr(kind, middle):
    config = TrainConfig(scheduler_type=kind)
    assert learning_rate(config, 10_999, 11_000) == pytest.approx(1e-6)
    assert learning_rate(config, 50_000, 11_000) == pytest.approx(1e-6)
    assert learning_rate(config, 6000, 11_001) == pytest.approx(middle)


def test_cosine_and_linear_differ_where_they_should():
    quarter = [learning_rate(TrainConfig(scheduler_type=kind), 3500, 11_001) for kind in ("cosine", "linear")]
    assert quarter[0] == pytest.approx(1e-6 + 99e-6 * 0.853553, rel=1e-5)
    assert quarter[1] == pytest.approx(1e-6 + 99e-6 * 0.75)


def test_unknown_length_holds_the_base_rate():
    assert learning_rate(TrainConfig(), 10**9, None) == 1e-4


class Slowing:
    """A source on a machine that gets busy: the first five seconds a step takes 0.05 s, then 0.2 s, after 50 s 3 s."""

    def __init__(self, source, monkeypatch):
        self.source, self.steps_per_epoch, self.now = source, source.steps_per_epoch, 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def batch(self, step):
        self.now += 0.05 if self.now < 105 else 0.2 if self.now < 150 else 3.0
        return self.source.batch(step)


def clocked(panda, tmp_path, **changes):
    torch.manual_seed(0)
    settings = {"max_steps": 1000, "warmup_steps": 100, "reflow_start": 600, "curriculum_steps": 300, "log_interval": 1}
    config = TrainConfig(batch_size=32, device="cpu", **{**settings, **changes})
    model = MeanFlowNet(ModelConfig(width=32, num_blocks=1, cond_dim=16, encoding="none"))
    return MeanFlowTrainer(model, config, panda, tmp_path)


def test_by_the_clock_every_schedule_follows_elapsed_time(panda, tmp_path, monkeypatch):
    run = clocked(panda, tmp_path)
    source = Slowing(OnlineSource(panda, 32, seed=0, epoch_rows=640), monkeypatch)
    phases, reach = {}, {}
    sample = run._sampler.training_sample

    def watched(rows, phase):
        phases[run.global_step] = phase
        reach[run.global_step] = (run._position.item() + 1) / 300
        return sample(rows, phase)

    monkeypatch.setattr(run._sampler, "training_sample", watched)
    run.fit(source, source.source.validation_rows(20), seconds=10)
    assert run.elapsed_s == pytest.approx(10, rel=0.03) and run.global_step in (125, 126)
    # Half of the time is 100 steps: the curriculum ends after 60 of them, reflow begins with 60 % of the time.
    assert [step for step, phase in phases.items() if phase.curriculum][-1] in (58, 59, 60)
    assert max(reach[step] for step, phase in phases.items() if phase.curriculum) <= 1
    assert [step for step, phase in phases.items() if phase.reflow][0] in (104, 105, 106)
    rates = [float(line.split(",")[3]) for line in open(tmp_path / "metrics.csv") if ",train/lr," in line]
    assert max(rates) == pytest.approx(1e-4, rel=0.01) and rates.index(max(rates)) in (19, 20, 21)
    assert rates[-1] < 2e-6, "the decay has ended with the time"


def test_by_the_clock_records_are_evenly_spread_over_the_time(panda, tmp_path, monkeypatch):
    run = clocked(panda, tmp_path, log_interval=200)
    source = Slowing(OnlineSource(panda, 32, seed=0, epoch_rows=640), monkeypatch)
    run.fit(source, source.source.validation_rows(20), seconds=10)
    assert run.global_step < 200, "fewer steps than an interval has"
    seconds = [float(line.split(",")[1]) for line in open(tmp_path / "metrics.csv") if ",train/loss," in line]
    assert seconds == pytest.approx([2, 4, 6, 8, 10], abs=0.2)


def test_by_the_clock_no_validation_begins_that_would_outlast_the_time(panda, tmp_path, monkeypatch):
    run = clocked(panda, tmp_path)
    source = Slowing(OnlineSource(panda, 32, seed=0, epoch_rows=640), monkeypatch)
    ends = []

    def validate(val):
        source.now += 1.5
        ends.append(run.elapsed_s + 1.5)
        return {"val_loss": 1.0, "pos_mm_mean": 0.0, "rot_deg_mean": 0.0, "solved_3": 0.0, "solved_10": 0.0}

    monkeypatch.setattr(run, "validate", validate)
    run.fit(source, source.source.validation_rows(20), seconds=10)
    assert run.elapsed_s == pytest.approx(10, rel=0.03)
    before, *within, last = ends
    assert before == 1.5 and within and max(within) < 10 and last > 11, "one before the time runs, one behind it"


def test_by_the_clock_a_continued_run_takes_the_rest_of_the_time(panda, tmp_path, monkeypatch):
    run = clocked(panda, tmp_path, save_interval=20, keep_checkpoints=0)
    source = Slowing(OnlineSource(panda, 32, seed=0, epoch_rows=640), monkeypatch)
    run.fit(source, source.source.validation_rows(20), seconds=10)
    second = clocked(panda, None)
    second.resume(tmp_path / "checkpoints" / "checkpoint_step_20.pth")
    assert second.elapsed_s == pytest.approx(1)
    second.fit(source, source.source.validation_rows(20), seconds=10)  # the machine is still busy
    assert second.elapsed_s == pytest.approx(10, rel=0.03) and second.global_step in (65, 66)


def test_by_the_clock_a_run_ends_with_the_step_that_outlasts_the_time(panda, tmp_path, monkeypatch):
    run = clocked(panda, tmp_path)
    source = Slowing(OnlineSource(panda, 32, seed=0, epoch_rows=640), monkeypatch)
    source.now += 60  # busy from the start: the time is over within the first step
    metrics = run.fit(source, source.source.validation_rows(20), seconds=0.05)
    assert run.global_step == 1 and metrics["val_loss"] > 0
    assert (tmp_path / "checkpoints" / "final_model.pth").is_file()


def test_time_without_a_length_of_the_schedules_is_refused(panda):
    source = OnlineSource(panda, 32, seed=0, epoch_rows=640)
    with pytest.raises(ArgumentError, match="max_steps"):
        clocked(panda, None, max_steps=0).fit(source, source.validation_rows(20), seconds=1)
