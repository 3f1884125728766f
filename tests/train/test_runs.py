"""Runs of scripts/train.py: interrupted, continued, reproduced, in their own folder, with what they refuse."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from programs import python

from mfik.data import generate, save_dataset
from mfik.train.v1 import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
HANGS_S = 300  # what has not ended by then hangs; on busy cores a start alone may take a minute


def start(script, *args, cwd):
    command = [python(), str(ROOT / "scripts" / f"{script}.py"), *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


ENDLESS = ("--robot", "panda", "--data_path", "online", "--coupling", "local", "--preset", "tiny", "--batch_size", 32)


def wait_for(path, process, seconds=HANGS_S):
    deadline = time.time() + seconds
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.stdout.read()
        assert time.time() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_cleanly(tmp_path, number):
    process = start("train", *ENDLESS, "--output_dir", "run", "--save_interval", 5, cwd=tmp_path)
    wait_for(tmp_path / "run" / "checkpoints" / "checkpoint_step_*.pth", process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, out
    path = out[out.index("--resume_from") :].split()[1]
    step = int(path.removesuffix(".pth").rsplit("_", 1)[1])
    assert f"interrupted after step {step}" in out.replace(",", "")
    assert load_checkpoint(tmp_path / path)["global_step"] == step
    out = start("train", *ENDLESS, "--resume_from", path, "--max_steps", step + 3, "--output_dir", "run", cwd=tmp_path)
    assert out.wait(HANGS_S) == 0, out.stdout.read()
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "final_model.pth")["global_step"] == step + 3


@pytest.mark.slow
def test_torchrun_trains_and_rank_0_writes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "scripts" / "train.py"), *map(str, ENDLESS), "--max_steps", "6", "--save_interval", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=HANGS_S)
    assert out.returncode == 0, out.stdout + out.stderr
    folder = tmp_path / "outputs" / "panda"
    state = load_checkpoint(folder / "checkpoints" / "final_model.pth")
    assert (state["global_step"], state["samples_seen"]) == (6, 6 * 32 * 2)
    assert json.loads((folder / "run.json").read_text())["environment"]["processes"] == 2
    assert out.stdout.count("samples seen") == 1


@pytest.mark.slow
def test_a_run_is_reproduced_from_its_record(tmp_path):
    args = (*ENDLESS, "--max_steps", 6, "--learning_rate", 3e-3, "--warmup_steps", 1)
    for output, arguments in (("a", args), ("b", ("--config", "a/run.json"))):
        process = start("train", *arguments, "--output_dir", output, cwd=tmp_path)
        out, _ = process.communicate(timeout=HANGS_S)
        assert process.returncode == 0, out
    a, b = (load_checkpoint(tmp_path / run / "checkpoints" / "final_model.pth") for run in "ab")
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["train_config"]["learning_rate"] == 3e-3 and record["arguments"]["data_path"] == "online"
    assert {"torch", "python", "device", "threads"} <= set(record["environment"])
    for name in ("loss.png", "error.png"):
        assert (tmp_path / "a" / "plots" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_new_run_touches_nothing_that_is_not_a_runs(tmp_path):
    """A folder with logs of its own is no run: they stay, and no --overwrite is asked for."""
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "mine.txt").write_text("keep")
    process = start("train", *ENDLESS, "--max_steps", 2, "--output_dir", "run", cwd=tmp_path)
    out, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, out
    assert (tmp_path / "run" / "logs" / "mine.txt").read_text() == "keep"
    # Killed before its first checkpoint, it still counts as a run; resumed, it keeps the record it began with.
    record = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "elsewhere")
    process = start("train", *ENDLESS, "--output_dir", "run", cwd=tmp_path)
    out, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode != 0 and "--overwrite" in out
    resume = ("--resume_from", "elsewhere/final_model.pth", "--data_path", "online", "--max_steps", 3)
    process = start("train", *resume, "--output_dir", "run", cwd=tmp_path)
    out, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0 and "104,327 parameters" in out, out
    assert (tmp_path / "run" / "run.json").read_text() == record


def test_dry_run_writes_nothing(tmp_path):
    process = start("train", *ENDLESS, "--num_epochs", 2, "--dry_run", cwd=tmp_path)
    out, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, out
    assert "62,500 steps of 32 rows would follow" in out and not list(tmp_path.iterdir())


def train(*args, cwd, ok=True):
    """Run scripts/train.py to its end; return what it wrote."""
    process = start("train", *args, cwd=cwd)
    out, _ = process.communicate(timeout=HANGS_S)
    assert (process.returncode == 0) == ok, out
    return out


@pytest.mark.slow
def test_a_run_is_continued_in_its_own_folder_and_in_no_other_runs(tmp_path):
    args = (*ENDLESS, "--max_steps", 4, "--save_interval", 2)
    train(*args, "--output_dir", "outputs/panda", cwd=tmp_path)  # where a run without --output_dir goes
    train(*args, "--seed", 1, "--output_dir", "a", cwd=tmp_path)
    other = {path: path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file()}
    middle = "a/checkpoints/checkpoint_step_2.pth"
    text = train("--resume_from", middle, "--output_dir", "outputs/panda", cwd=tmp_path, ok=False)
    assert text.splitlines()[-1].startswith("error: --output_dir outputs/panda: holds another run than a/")
    (tmp_path / "outputs" / "panda" / "run.json").rename(tmp_path / "record")  # its checkpoints tell as well
    assert "holds another run" in train(
        "--resume_from", middle, "--output_dir", "outputs/panda", cwd=tmp_path, ok=False
    )
    (tmp_path / "record").rename(tmp_path / "outputs" / "panda" / "run.json")
    train("--resume_from", middle, "--max_steps", 5, cwd=tmp_path)
    assert load_checkpoint(tmp_path / "a" / "checkpoints" / "final_model.pth")["global_step"] == 5
    assert {path: path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file()} == other
    # A new folder is a branch: another run from then on.
    train("--resume_from", middle, "--output_dir", "branch", cwd=tmp_path)
    text = train("--resume_from", middle, "--output_dir", "branch", cwd=tmp_path, ok=False)
    assert "holds another run" in text
    # A checkpoint that was copied elsewhere does not tell its folder.
    (tmp_path / "copy.pth").write_bytes((tmp_path / middle).read_bytes())
    assert "--output_dir: expected a folder" in train("--resume_from", "copy.pth", cwd=tmp_path, ok=False)


@pytest.mark.slow
def test_a_run_of_any_robot_is_continued_by_its_folder_alone(tmp_path):
    links = ("--base_link", "world", "--tip_link", "flange")
    args = ("--robot", ROOT / "examples" / "gantry.urdf", *links, *ENDLESS[2:], "--max_steps", 3)
    train(*args, "--output_dir", "gantry", cwd=tmp_path)
    train("--resume_from", "gantry", "--max_steps", 5, cwd=tmp_path)
    state = load_checkpoint(tmp_path / "gantry" / "checkpoints" / "final_model.pth")
    assert state["global_step"] == 5 and json.loads(state["robot"])["base_link"] == "world"
    text = train("--resume_from", "gantry", "--robot", "ur10", cwd=tmp_path, ok=False)
    assert "error: gantry/checkpoints/final_model.pth: trained for robot" in text


@pytest.mark.slow
def test_a_run_is_not_continued_on_other_data_unless_asked(panda, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        save_dataset(tmp_path / f"{name}.pt", generate(panda, 200, coupling="local", seed=seed))
    train("--data_path", "a.pt", *ENDLESS[6:], "--max_steps", 2, "--output_dir", "run", cwd=tmp_path)
    resume = ("--resume_from", "run", "--max_steps", 4)
    text = train(*resume, "--data_path", "b.pt", cwd=tmp_path, ok=False)
    assert "trained on other data: seed 2, expected 1; sha256" in text and "--other_data" in text
    text = train(*resume, "--data_path", "online", cwd=tmp_path, ok=False)
    assert "rows 'online', expected 200" in text
    train(*resume, "--data_path", "b.pt", "--other_data", cwd=tmp_path)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "final_model.pth")["global_step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "generate_data"])
def test_a_full_disk_is_one_line_with_file_and_bytes(tmp_path, script):
    """A limit on the size of files stands for the disk: the same error, from the same call."""
    args = {
        "train": (*ENDLESS, "--max_steps", 2, "--output_dir", "run"),
        "generate_data": ("--robot", "panda", "--num_samples", 20_000, "--output", "run/data.pt"),
    }[script]
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, args)]
    out = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )  # fmt: skip
    last = out.stderr.strip().splitlines()[-1]
    assert out.returncode == 2 and "Traceback" not in out.stderr, out.stderr
    assert re.match(r"error: run/\S+: cannot be written, after 300,000 bytes: File too large", last), last
    assert not list(tmp_path.rglob("*partial"))


@pytest.mark.slow
def test_what_cannot_be_written_or_computed_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    for args, words in [
        (("--output_dir", "file"), "error: file: expected a folder that can be written, but it is a file"),
        (("--output_dir", "/proc/none"), "error: /proc/none: expected a folder that can be written"),
        (("--device", "cuda:99"), "error: device: expected one that torch finds, got 'cuda:99'"),
        (("--device", "gpu"), "error: device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    ]:
        text = train(*ENDLESS, "--max_steps", 1, *args, cwd=tmp_path, ok=False)
        assert text.splitlines()[-1].startswith(words) and "Traceback" not in text, text
