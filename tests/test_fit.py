"""From a robot to a bundle in one call."""

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from programs import SIGNAL_GROUP, python

from mfik.data import OnlineSource
from mfik.errors import ArgumentError
from mfik.eval import run_protocol
from mfik.export import export_bundle, load_bundle
from mfik.fit import FitSettings, fit, publish
from mfik.model import make_network
from mfik.robots import load_robot
from mfik.solve import Solver
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, load_checkpoint, load_model

HANGS_S = 600  # what has not ended by then hangs; on busy cores a start alone may take a minute


def took(training, minutes):
    """Tell whether a training took its time to within 3 %, or to ten steps, as busy cores may stop the last one.

    tests/train/test_schedule.py holds it to 3 % by a clock of its own.
    """
    return abs(training["minutes"] - minutes) <= max(0.03 * minutes, 10 * training["minutes"] / training["steps"])


@pytest.mark.slow
def test_seconds_of_training_give_a_bundle_with_a_card_that_beats_a_random_start(tmp_path, panda):
    settings = FitSettings(minutes=0.15, preset="nano", processes=2, num=200)
    report = fit(panda, tmp_path / "run", settings, command=["scripts/fit.py", "panda"])
    rows = report["one_attempt"]["global"]
    assert rows["network"]["solved"]["1e-5"]["10"] > rows["reference"]["solved"]["1e-5"]["10"] + 0.2
    bundle = tmp_path / "run" / "bundle"
    assert {path.name for path in bundle.iterdir()} == {
        "model.safetensors", "model.ts", "model.onnx", "SHA256SUMS", "README.md",
    }  # fmt: skip
    solver = Solver.load(bundle, panda)
    training, accuracy = solver.metadata["training"], solver.metadata["accuracy"]
    assert took(training, settings.minutes)
    assert training["samples_seen"] == training["steps"] * 2 * settings.batch_size
    assert accuracy["global"]["solved"] == json.loads(json.dumps(rows["network"]["solved"]))
    card = (bundle / "README.md").read_text()
    for text in (f"{training['samples_seen']:,}", training["hardware"], f"{solver.num_parameters:,}", "| 0."):
        assert text in card, text
    assert f"{1 - rows['network']['solved']['1e-5']['10']:.2%}" in card, "where it fails"
    with pytest.raises(ArgumentError, match="another folder"):
        fit(panda, tmp_path / "run", settings, command=[])


def test_a_bundle_is_written_once_after_it_was_measured(tmp_path, panda, monkeypatch):
    settings = FitSettings(preset="nano", num=20, batch_size=32)
    config = TrainConfig(batch_size=32, max_steps=4, warmup_steps=1, device="cpu")
    source = OnlineSource(panda, 32, seed=0, epoch_rows=64)
    trainer = MeanFlowTrainer(make_network("v2", "nano", panda), config, panda, tmp_path)
    trainer.fit(source, source.validation_rows(50))
    before = set(tmp_path.iterdir())
    arguments = {"hardware": "none", "processes": 1, "command": ["fit"]}

    def broken(*_, **__):
        raise RuntimeError("measured no further")

    monkeypatch.setattr("mfik.fit.run_protocol", broken)
    with pytest.raises(RuntimeError, match="measured no further"):
        publish(tmp_path, settings, **arguments)
    assert set(tmp_path.iterdir()) == before, "no bundle without its numbers"
    calls = []
    monkeypatch.setattr("mfik.fit.run_protocol", partial(run_protocol, diversity_poses=1))
    monkeypatch.setattr("mfik.fit.export_bundle", lambda *a, **k: calls.append(a) or export_bundle(*a, **k))
    report = publish(tmp_path, settings, **arguments)
    assert len(calls) == 1 and (tmp_path / "bundle" / "README.md").read_text().startswith("# panda\n")
    metadata = Solver.load(tmp_path / "bundle").metadata
    assert metadata["accuracy"]["global"]["solved"] == report["one_attempt"]["global"]["network"]["solved"]
    assert metadata["training"]["steps"] == 4


def test_a_bundle_holds_the_network_that_solved_most(tmp_path, panda, monkeypatch):
    settings = FitSettings(preset="nano", num=20, batch_size=32)
    config = TrainConfig(batch_size=32, max_steps=4, warmup_steps=1, best_by="success", device="cpu")
    source = OnlineSource(panda, 32, seed=0, epoch_rows=64)
    trainer = MeanFlowTrainer(make_network("v2", "nano", panda), config, panda, tmp_path)
    validate, rates = trainer.validate, iter((0.9, 0.8))
    monkeypatch.setattr(trainer, "validate", lambda *a: {**validate(*a), "solved_10": next(rates)})
    trainer.fit(source, source.validation_rows(50))
    monkeypatch.setattr("mfik.fit.run_protocol", partial(run_protocol, diversity_poses=1))
    publish(tmp_path, settings, hardware="none", processes=1, command=["fit"])
    network, _, document = load_bundle(tmp_path / "bundle")
    assert document["training"]["best_step"] == 2 and document["training"]["steps"] == 4
    folder = tmp_path / "checkpoints"
    best, final = (load_model(folder / name)[0].state_dict() for name in ("best_model.pth", "final_model.pth"))
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
    assert not torch.equal(best["head.weight"], final["head.weight"])


ROOT = Path(__file__).resolve().parents[1]


def start(*args, cwd, everyone=False):
    """Start scripts/fit.py, with its processes in a group of their own, which Ctrl-C in a terminal reaches: `everyone`.

    Even where the tests run in the background of a shell, whose children ignore SIGINT.
    """
    command = [python(), str(ROOT / "scripts" / "fit.py"), *map(str, args)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), SIGNAL_GROUP: "1" if everyone else ""},
    )  # fmt: skip


def finish(process, expect=0) -> str:
    """Wait for the end of a program; return what it wrote."""
    out, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == expect and "Traceback" not in out, out
    return out


def interrupt(process, wait_for: Path, text: str = "") -> str:
    """Send SIGINT as soon as a file is there and holds a text; return what the program wrote."""
    deadline = time.monotonic() + HANGS_S
    while not wait_for.is_file() or (text and text not in wait_for.read_text()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"{wait_for} did not appear"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    return finish(process, expect=130)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "everyone"), [(1, True), (2, True), (2, False)])
def test_a_run_is_interrupted_in_every_phase_and_continued_by_what_it_says(tmp_path, processes, everyone):
    run = tmp_path / "run"
    urdf = (ROOT / "examples" / "gantry.urdf", "--base_link", "world", "--tip_link", "flange")
    # So much time that no machine is through before the signal comes.
    settings = ("--minutes", 120, "--preset", "nano", "--processes", processes, "--num", 100, "--batch_size", 256)
    run_fit = partial(start, cwd=tmp_path, everyone=everyone)
    out = interrupt(run_fit(*urdf, *settings, "--output", "run"), run / "run.json")
    (command,) = (line.partition("continue with: ")[2] for line in out.splitlines() if "continue with: " in line)
    resume = command.split()[2:]
    assert command.split()[1].endswith("fit.py") and resume == ["--resume", "run"]
    assert not (run / "bundle").exists()
    interrupt(run_fit(*resume), run / "metrics.csv", ",train/loss,")
    (checkpoint,) = (run / "checkpoints").glob("checkpoint_step_*.pth")
    before = load_checkpoint(checkpoint)
    assert before["elapsed_s"] > 0 and before["global_step"] >= 1
    # Five seconds more are enough.
    record = json.loads((run / "run.json").read_text())
    assert record["run"] == before["run"] and record["arguments"]["minutes"] == 120
    minutes = record["arguments"]["minutes"] = (before["elapsed_s"] + 5) / 60
    (run / "run.json").write_text(json.dumps(record))
    interrupt(run_fit(*resume), run / "checkpoints" / "final_model.pth")
    after = load_checkpoint(run / "checkpoints" / "final_model.pth")
    assert after["global_step"] > before["global_step"] and after["run"] == before["run"]
    out = finish(run_fit(*resume))
    training = Solver.load(run / "bundle").metadata["training"]
    assert took(training, minutes)
    assert training["steps"] == after["global_step"], "only evaluation and export were left to do"
    assert "evaluation: " in out and "export: " in out, "progress"
    assert (run / "report" / "index.html").is_file() and (run / "plots" / "loss.png").is_file()
    record = json.loads((run / "run.json").read_text())
    assert record["run"] == after["run"] and record["robot"]["base_link"] == "world"
    assert "nothing is left to do" in finish(run_fit(*resume), expect=2)


@pytest.mark.slow
def test_sizes_objectives_and_starts_are_compared(tmp_path):
    benchmarks = Path(__file__).resolve().parents[1] / "benchmarks"

    def run(script, *args):
        command = [python(), str(benchmarks / script), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    text = run("pareto.py", "--presets", "nano", "--minutes", "0.02", "--num", "100", "--output", "pareto")
    (row,) = json.loads((tmp_path / "pareto" / "pareto.json").read_text())["networks"]
    assert row["preset"] == "nano" and f"{row['solved']:.2%}" in text and (tmp_path / "pareto" / "pareto.png").exists()
    arguments = "--table features --minutes 0.01 --seeds 1 --num 20 --json a.json".split()
    text = run("ablation.py", *arguments, "--only", "no step, no difference")
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["name"] == "no step, no difference" and f"{row['mean']['solved']:.1%}" in text
    text = run("network.py", "panda", "--num", "20", "--json", "n.json")
    row = json.loads((tmp_path / "n.json").read_text())["sets"]["near_limits"]["panda"]
    assert row["solve"]["success"] == 1 and f"| panda | {row['answer']['success']:.1%}" in text


@pytest.mark.parametrize(
    "change",
    [
        {"minutes": 0}, {"minutes": float("nan")}, {"processes": -1}, {"preset": "huge"}, {"num": 0}, {"batch_size": 0},
        {"learning_rate": float("nan")}, {"sigma": -1.0}, {"coupling": "magic"},
    ],
)  # fmt: skip
def test_bad_settings_name_the_field(tmp_path, change):
    with pytest.raises(ArgumentError, match=next(iter(change)).replace("preset", "size")):
        fit(load_robot("ur10"), tmp_path, FitSettings(**change), command=[])
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == 1, "the caller's threads stay"
