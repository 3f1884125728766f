"""From a robot to a bundle in one call."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from mfik.data import OnlineSource
from mfik.errors import ArgumentError
from mfik.eval import run_protocol
from mfik.export import export_bundle
from mfik.fit import FitSettings, fit, publish
from mfik.model import make_network
from mfik.robots import load_robot
from mfik.solve import Solver
from mfik.train.v1 import MeanFlowTrainer, TrainConfig


@pytest.mark.slow
def test_seconds_of_training_give_a_bundle_with_a_card_that_beats_a_random_start(tmp_path, panda):
    settings = FitSettings(minutes=0.15, preset="nano", processes=2, num=200)
    report = fit(panda, tmp_path / "run", settings, command="python scripts/fit.py panda")
    rows = report["one_attempt"]["global"]
    assert rows["network"]["solved"]["1e-5"]["10"] > rows["reference"]["solved"]["1e-5"]["10"] + 0.2
    bundle = tmp_path / "run" / "bundle"
    assert {path.name for path in bundle.iterdir()} == {
        "model.safetensors", "model.ts", "model.onnx", "SHA256SUMS", "README.md",
    }  # fmt: skip
    solver = Solver.load(bundle, panda)
    training, accuracy = solver.metadata["training"], solver.metadata["accuracy"]
    assert training["samples_seen"] == training["steps"] * 2 * settings.batch_size
    assert accuracy["global"]["solved"] == json.loads(json.dumps(rows["network"]["solved"]))
    card = (bundle / "README.md").read_text()
    for text in (f"{training['samples_seen']:,}", training["hardware"], f"{solver.num_parameters:,}", "| 0."):
        assert text in card, text
    assert f"{1 - rows['network']['solved']['1e-5']['10']:.2%}" in card, "where it fails"
    with pytest.raises(ArgumentError, match="another folder"):
        fit(panda, tmp_path / "run", settings, command="")


def test_a_bundle_is_written_once_after_it_was_measured(tmp_path, panda, monkeypatch):
    settings = FitSettings(preset="nano", num=20, batch_size=32)
    config = TrainConfig(batch_size=32, max_steps=4, warmup_steps=1, device="cpu")
    source = OnlineSource(panda, 32, seed=0, epoch_rows=64)
    trainer = MeanFlowTrainer(make_network("v2", "nano", panda), config, panda, tmp_path)
    trainer.fit(source, source.validation_rows(50))
    before = set(tmp_path.iterdir())
    arguments = {"minutes": 1.0, "hardware": "none", "processes": 1, "command": "fit"}

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


@pytest.mark.slow
def test_sizes_and_objectives_are_compared(tmp_path):
    benchmarks = Path(__file__).resolve().parents[1] / "benchmarks"

    def run(script, *args):
        command = [sys.executable, str(benchmarks / script), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    text = run("pareto.py", "--presets", "nano", "--minutes", "0.02", "--num", "100", "--output", "pareto")
    (row,) = json.loads((tmp_path / "pareto" / "pareto.json").read_text())["networks"]
    assert row["preset"] == "nano" and f"{row['solved']:.2%}" in text and (tmp_path / "pareto" / "pareto.png").exists()
    arguments = ["--table", "features", "--only", "step in u", "--minutes", "0.01", "--seeds", "1", "--json", "a.json"]
    text = run("ablation.py", *arguments)
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["name"] == "no step in u" and f"{row['mean']['solved']:.1%}" in text


@pytest.mark.parametrize(
    "change",
    [
        {"minutes": 0}, {"minutes": float("nan")}, {"processes": -1}, {"preset": "huge"}, {"num": 0}, {"batch_size": 0},
        {"learning_rate": float("nan")}, {"sigma": -1.0}, {"coupling": "magic"},
    ],
)  # fmt: skip
def test_bad_settings_name_the_field(tmp_path, change):
    with pytest.raises(ArgumentError, match=next(iter(change)).replace("preset", "size")):
        fit(load_robot("ur10"), tmp_path, FitSettings(**change), command="")
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == 1, "the caller's threads stay"
