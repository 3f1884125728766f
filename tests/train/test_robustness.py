"""Runs that are killed, interrupted, spread over processes or fed with bad numbers."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from programs import python
from torch.utils._python_dispatch import TorchDispatchMode

from mfik.data import FileSource, OnlineSource, generate, save_dataset
from mfik.errors import TrainingError
from mfik.model import make_network
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.ops import Batch
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, load_checkpoint, save_checkpoint
from mfik.train.v1.step import Sample

ROOT = Path(__file__).resolve().parents[2]
HANGS_S = 300  # what has not ended by then hangs; on busy cores a start alone may take a minute
TINY = ModelConfig(width=32, num_blocks=1, cond_dim=16, encoding="none")


def config(**changes):
    base = {"batch_size": 64, "warmup_steps": 2, "max_steps": 12, "log_interval": 4, "device": "cpu"}
    return TrainConfig(**{**base, **changes})


def trainer(panda, output_dir=None, **changes):
    torch.manual_seed(0)
    return MeanFlowTrainer(MeanFlowNet(TINY), config(**changes), robot=panda, output_dir=output_dir)


def online(panda, **changes):
    return OnlineSource(panda, 64, coupling="mixed", seed=0, epoch_rows=64 * 6, **changes)


def test_online_runs_resume_exactly(panda, tmp_path):
    source = online(panda)
    val = source.validation_rows(100)
    whole = trainer(panda)
    whole.fit(online(panda), val)
    trainer(panda, tmp_path, save_interval=5, keep_checkpoints=0).fit(online(panda), val)
    second = trainer(panda)
    second.resume(tmp_path / "checkpoints" / "checkpoint_step_5.pth")
    second.fit(online(panda), val)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


class Watched(TorchDispatchMode):
    """Notes the functions of vector maths that are called: name and dtype, with the largest number of elements."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.strip("_")
        if name in VECTOR_MATHS:
            key = name, args[0].dtype
            self.seen[key] = max(self.seen.get(key, 0), args[0].numel())
        return function(*args, **(kwargs or {}))


VECTOR_MATHS = {
    "acos", "asin", "atan", "atan2", "cos", "erf", "exp", "expm1", "log", "log1p", "pow", "rsqrt", "sigmoid", "silu",
    "sin", "sqrt", "tan", "tanh",
}  # fmt: skip


@pytest.mark.parametrize("network", ["v1", "v2"])
def test_functions_that_training_uses_are_first_called_on_one_thread(panda, network):
    """MKL may compute with low accuracy in the first call of a function that several threads make together."""
    changes = {"reflow_start": 1, "curriculum_steps": 3, "reference_noise": 0.1, "limit_loss_weight": 1.0}
    model = make_network(network, "tiny", panda)
    with Watched() as first:
        run = MeanFlowTrainer(model, config(**changes), robot=panda)
    assert set(first.seen.values()) == {1}
    source = OnlineSource(panda, 64, coupling="seeding", seed=0)
    with Watched() as used:
        for step in range(3):
            run.train_step(source.batch(step))
            run.global_step += 1
        run.validate(source.validation_rows(20))
    assert used.seen and max(used.seen.values()) > 1
    assert not set(used.seen) - set(first.seen)


class Poisoned:
    """A source whose rows are NaN at some steps."""

    def __init__(self, source, steps):
        self.source, self.steps, self.steps_per_epoch = source, steps, source.steps_per_epoch

    def batch(self, step):
        rows = self.source.batch(step)
        if step in self.steps:
            rows = rows._replace(tensors={**rows.tensors, "q_target": rows.tensors["q_target"] * float("nan")})
        return rows


def test_a_step_that_is_not_finite_is_skipped_and_its_batch_kept(panda, tmp_path):
    source = online(panda)
    run = trainer(panda, tmp_path)
    with pytest.warns(RuntimeWarning, match="step 3: the loss or its gradient was not finite"):
        run.fit(Poisoned(source, {3}), source.validation_rows(50))
    assert run.bad_steps == 1 and run.global_step == 12
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    batch = torch.load(tmp_path / "bad_batches" / "step_3_rank_0.pt", weights_only=True)
    assert batch["q_target"].isnan().all() and batch["q"].shape == (64, 7)
    state = load_checkpoint(tmp_path / "checkpoints" / "final_model.pth")
    assert all(value.isfinite().all() for value in state["ema"].values())


def test_too_many_such_steps_end_the_run_with_a_remedy(panda):
    source = online(panda)
    run = trainer(panda, max_bad_steps=2)
    with warnings.catch_warnings(), pytest.raises(TrainingError, match=r"max_bad_steps = 2.*--learning_rate"):
        warnings.simplefilter("ignore")
        run.fit(Poisoned(source, {1, 2, 4}), source.validation_rows(50))
    assert run.global_step == 6  # the end of the epoch, where the host looks next


def test_a_skipped_step_changes_nothing_but_the_average_of_what_is_logged(panda):
    run = trainer(panda, warmup_steps=0)
    data = generate(panda, 128, seed=3)
    run.train_step(data[:64])
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    moments = [{k: v.clone() for k, v in state.items()} for state in run.optimizer.state.values()]
    run._step.mean_metrics()
    run.global_step = 1
    with pytest.warns(RuntimeWarning, match="step 1: "):
        metrics = run.train_step({**data[64:], "q_target": data[64:]["q_target"] * float("nan")})
    assert metrics["loss"] != metrics["loss"] and run.bad_steps == 1
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    for state, moment in zip(run.optimizer.state.values(), moments, strict=True):
        assert all(torch.equal(value, moment[name]) for name, value in state.items())
    good = [run.train_step(data[:64]) for _ in range(2)]
    mean = run._step.mean_metrics()  # of the two good steps
    for name, value in mean.items():
        assert value == pytest.approx((good[0][name] + good[1][name]) / 2, rel=1e-6), name


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


SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from mfik.train.v1 import save_checkpoint
n = 0
while True:
    n += 1
    save_checkpoint(Path(sys.argv[1]), {"n": n, "values": torch.full((200_000,), float(n))})
    print(n, flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_instant_the_newest_complete_checkpoint_loads(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, {"n": 0, "values": torch.zeros(200_000)})
    dice = random.Random(0)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        finished = int(process.stdout.readline())
        time.sleep(dice.uniform(0, 0.05))
        process.kill()
        rest, _ = process.communicate()
        finished = int(rest.split()[-1]) if rest.split() else finished
        state = load_checkpoint(path)
        assert state["n"] in (finished, finished + 1)
        assert (state["values"] == state["n"]).all()


DISTRIBUTED = """
import sys, torch
from mfik.data import StepRows, generate
from mfik.model import make_network
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig
torch.distributed.init_process_group("gloo")
panda = load_robot("panda")
torch.manual_seed(0)
model = MeanFlowNet(ModelConfig(width=32, num_blocks=1, cond_dim=16, encoding="none"))
torch.nn.init.normal_(model.head.weight, std=0.1)
config = TrainConfig(batch_size=64, device="cpu", gradient_clip=0.0, warmup_steps=0)
trainer = MeanFlowTrainer(model, config, robot=panda)
sample = trainer._sampler.sample(StepRows.of(generate(panda, 64, seed=trainer.rank)[:]), 0, 0)
trainer._step(sample, lambda sample: trainer._loss(trainer._trained, sample))
torch.save({
    "batch": tuple(sample[0]), "counts": sample[1:],
    "gradients": {name: p.grad for name, p in model.named_parameters()}, "model": model.state_dict(),
}, f"{sys.argv[2]}/rank_{trainer.rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one_with_the_joined_batch(panda, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(DISTRIBUTED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [*command, "-", str(tmp_path)], capture_output=True, text=True, env=environment, timeout=HANGS_S
    )
    assert out.returncode == 0, out.stderr
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    start_times = [rank["batch"][Batch._fields.index("r")] for rank in ranks]
    assert not torch.equal(*start_times), "each rank draws its own times"
    for name, gradient in ranks[0]["gradients"].items():
        assert torch.equal(gradient, ranks[1]["gradients"][name]), name
        assert torch.equal(ranks[0]["model"][name], ranks[1]["model"][name]), name

    # One process, the joined batch: the rows with a JVP first, as the loss expects them.
    num_jvp, num_endpoint = ranks[0]["counts"]
    order = [
        (rank, slice(a, b)) for a, b in ((0, num_endpoint), (num_endpoint, num_jvp), (num_jvp, 64)) for rank in (0, 1)
    ]
    joined = [torch.cat([ranks[rank]["batch"][i][rows] for rank, rows in order]) for i in range(7)]
    torch.manual_seed(0)
    model = MeanFlowNet(TINY)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    run = MeanFlowTrainer(model, config(gradient_clip=0.0, warmup_steps=0), robot=panda)
    sample = Sample(Batch(*joined), 2 * num_jvp, 2 * num_endpoint)
    run._step(sample, lambda sample: run._loss(run._trained, sample))
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, ranks[0]["gradients"][name], rtol=1e-4, atol=1e-6)


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


def test_rows_left_out_of_a_file_are_not_trained_on(panda):
    """FileSource and the trainer together: an epoch over 3 batches touches every training row once."""
    data = generate(panda, 192, seed=2)
    source = FileSource(data, 64, seed=0)
    seen = torch.cat([source.batch(step).tensors["index"] for step in range(source.steps_per_epoch)])
    assert sorted(seen.tolist()) == list(range(192))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_like_float32(panda, dtype):
    """What CUDA switches on, run on the CPU: autocast, loss scaling with fp16."""
    data = generate(panda, 640, coupling="local", seed=3)
    runs = {}
    for name in ("float32", "mixed"):
        run = trainer(panda, warmup_steps=0, learning_rate=1e-3)
        if name == "mixed":
            run._use_amp(dtype)
        losses = []
        for step in range(10):
            losses.append(run.train_step(data[64 * step : 64 * step + 64])["loss"])
            run.global_step += 1
        runs[name] = torch.tensor(losses)
        assert run.bad_steps == 0 and all(p.dtype == torch.float32 for p in run.model.parameters())
    torch.testing.assert_close(runs["mixed"], runs["float32"], rtol=0.03, atol=0.01)
    assert not torch.equal(runs["mixed"], runs["float32"])


def test_an_overflow_of_the_loss_scale_costs_one_step_and_lowers_the_scale(panda):
    run = trainer(panda, warmup_steps=0, max_bad_steps=0)
    run._use_amp(torch.float16)
    run._step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, enabled=True)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train_step(generate(panda, 64, seed=3)[:])
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert run._step.scaler.get_scale() == 2.0**59 and run.bad_steps == 0


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
    assert out.returncode == 1 and "Traceback" not in out.stderr, out.stderr
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
