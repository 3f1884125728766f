"""The command lines, as a user runs them."""

import json
import re
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from programs import python

from mfik.train.v1 import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def run(script, *args, cwd, ok=True, interpreter=None):
    command = [interpreter or python(), str(ROOT / "scripts" / f"{script}.py"), *map(str, args)]
    out = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert (out.returncode == 0) == ok, out.stdout + out.stderr
    return out.stdout + out.stderr


def children_s() -> float:
    """Processor time [s] of the programs that have run: unlike the clock, it does not depend on what runs beside."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("command", ["-m mfik", *(f"scripts/{p.name}" for p in sorted(SCRIPTS.glob("*.py")))])
def test_help_reads(command):
    out = subprocess.run([python(), *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    usage, purpose, *groups = out.stdout.split("\n\n")
    assert usage.startswith("usage: ") and purpose.strip().endswith(".") and len(purpose.splitlines()) <= 2
    assert "None)" not in out.stdout and "False)" not in out.stdout, "a default that says nothing"
    for group in groups:
        for option in re.split(r"^  (?=-)", group, flags=re.M)[1:]:
            # "-h, --help   text", or the text on the next line
            assert len(re.split(r" {2,}|\n", option.strip(), maxsplit=1)) == 2, f"no help: {option}"


def test_every_training_setting_has_its_own_help():
    text = " ".join(run("train", "--help", cwd=ROOT).split())
    for field in fields(TrainConfig):
        assert f"--{field.name}" in text
        assert " ".join(TrainConfig.field_help()[field.name].split()[:3]) in text, field.name


def test_the_gpu_script_tells_what_it_does():
    out = subprocess.run(["bash", SCRIPTS / "gpu_checks.sh", "--help"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("usage:") and "compute-sanitizer" in out.stdout


@pytest.mark.slow
def test_the_whole_line_runs(tmp_path):
    run("generate_data", "--robot", "ur10", "--num_samples", 5000, "--output", "data/ur10.pt", cwd=tmp_path)
    train = ["--robot", "ur10", "--data_path", "data/ur10.pt", "--preset", "tiny", "--max_steps", 20]
    run("train", *train, "--warmup_steps", 5, "--save_interval", 10, cwd=tmp_path)
    checkpoints = tmp_path / "outputs" / "ur10" / "checkpoints"
    assert {"best_model.pth", "final_model.pth", "checkpoint_step_10.pth"} <= {p.name for p in checkpoints.iterdir()}
    # Nothing is lost unasked.
    before = (checkpoints / "final_model.pth").read_bytes()
    assert "--resume_from" in run("train", *train, cwd=tmp_path, ok=False)
    assert (checkpoints / "final_model.pth").read_bytes() == before
    run("train", *train, "--warmup_steps", 5, "--save_interval", 10, "--overwrite", cwd=tmp_path)
    assert len(list((checkpoints.parent / "logs").iterdir())) == 1, "nothing of the run before is left"
    run("train", *train, "--warmup_steps", 5, "--resume_from", checkpoints / "checkpoint_step_10.pth", cwd=tmp_path)
    run("export", "--checkpoint", checkpoints / "final_model.pth", "--output", "bundle", cwd=tmp_path)
    files = {p.name for p in (tmp_path / "bundle").iterdir()}
    assert files == {"model.safetensors", "model.ts", "model.onnx", "SHA256SUMS"}
    reports = []
    for model in ("bundle", checkpoints / "final_model.pth"):
        text = run("evaluate", "--model", model, "--num", 50, "--refine", 3, "--json", "r.json", cwd=tmp_path)
        assert "50 poses" in text
        reports.append(json.loads((tmp_path / "r.json").read_text()))
    for a, b in zip(reports[0]["stages"], reports[1]["stages"], strict=True):
        assert {k: v for k, v in a.items() if k != "us"} == {k: v for k, v in b.items() if k != "us"}
    text = run("evaluate", "--model", "bundle", "--protocol", "--num", 50, "--json", "p.json", cwd=tmp_path)
    report = json.loads((tmp_path / "p.json").read_text())
    assert "50 poses a set" in text and list(report["one_attempt"]["local 0.1"]) == ["network", "reference"]
    assert report["parameters"] > 0 and "network, one step" in report["diversity"]["rows"]


@pytest.mark.slow
def test_quick_test_ends_within_a_minute(tmp_path):
    start = children_s()
    text = run("train", "--quick_test", cwd=tmp_path, interpreter=sys.executable)
    assert children_s() - start < 60
    assert (tmp_path / "outputs/quick_test/checkpoints/final_model.pth").is_file()
    means = [float(x) for x in re.findall(r"one-step mean (\d+\.\d\d) mm", text)]
    assert len(means) == 5 and means[-1] < 0.95 * means[0], "five epochs are enough to get nearer"


def test_errors_are_one_line_and_name_the_remedy(tmp_path):
    for script, args, words in [
        ("generate_data", ["--robot", "pandas", "--output", "x.pt"], "pandas"),
        ("generate_data", ["--robot", "panda", "--num_samples", 0, "--output", "x.pt"], "num_samples"),
        ("train", ["--robot", "panda"], "--data_path"),
        ("train", ["--robot", "panda", "--data_path", "none.pt"], "none.pt"),
        ("export", ["--checkpoint", "none.pth", "--output", "b"], "none.pth"),
        ("export", ["--model", "ur10", "--spheres", "s.yml", "--output", "b"], "--spheres: expected none with --model"),
        ("export", ["--checkpoint", "c.pth", "--tip_link", "t", "--output", "b"], "--tip_link: expected none with"),
        ("evaluate", ["--model", "none"], "none"),
        ("evaluate", ["--model", "none", "--protocol", "--kind", "local"], "--kind"),
    ]:
        text = run(script, *args, cwd=tmp_path, ok=False)
        last = text.strip().splitlines()[-1]
        assert last.startswith("error: ") and words in last and "Traceback" not in text, text
    assert not list(tmp_path.glob("*.pt")) and not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_million_rows_are_quick(tmp_path):
    """Under two minutes of one core; the projected coupling, with its refinements, under four."""
    for coupling, limit_s in (("global", 120), ("projected", 240)):
        start = children_s()
        args = ("--robot", "panda", "--coupling", coupling, "--output", f"{coupling}.pt")
        run("generate_data", *args, cwd=tmp_path, interpreter=sys.executable)
        assert children_s() - start < limit_s


@pytest.mark.slow
def test_a_pretrained_model_is_exported_in_every_format(tmp_path):
    run("export", "--model", "ur10", "--output", "all", cwd=tmp_path)
    assert {p.name for p in (tmp_path / "all").iterdir()} == {
        "model.safetensors", "model.ts", "model.onnx", "SHA256SUMS",
    }  # fmt: skip
    reports = []
    for model in ("ur10", "all"):
        run("evaluate", "--model", model, "--num", 50, "--refine", 3, "--json", "r.json", cwd=tmp_path)
        reports.append(json.loads((tmp_path / "r.json").read_text())["stages"])
    for shipped, exported in zip(*reports, strict=True):
        assert shipped["pos_mm"] == exported["pos_mm"] and shipped["rot_deg"] == exported["rot_deg"]
    assert "no such file" in run("export", "--model", "nothing", "--output", "none", cwd=tmp_path, ok=False)


@pytest.mark.slow
def test_runs_are_compared(tmp_path):
    args = ["--data_path", "online", "--coupling", "local", "--preset", "tiny", "--batch_size", 32, "--max_steps", 20]
    for name, rate in (("a", 1e-3), ("b", 3e-3)):
        run("train", *args, "--learning_rate", rate, "--log_interval", 5, "--output_dir", name, cwd=tmp_path)
    text = run("compare", "a", "b", "--output", "both", cwd=tmp_path)
    record = [line.split(",") for line in (tmp_path / "b" / "metrics.csv").read_text().splitlines()]
    loss = float([value for _, _, tag, value in record[1:] if tag == "val/val_loss"][-1])
    (row,) = (line for line in text.splitlines() if line.startswith("b "))
    assert row.split("|")[1].strip() == "20" and f"{loss:.4g}" in row.split("|")[3]
    assert "train_config.learning_rate: a 0.001, b 0.003" in text and "batch_size" not in text
    assert (tmp_path / "both" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "The settings are the same." in run("compare", "a", cwd=tmp_path)
    text = run("compare", "both", cwd=tmp_path, ok=False)
    assert text.startswith("error: both: expected the folder of a run")
