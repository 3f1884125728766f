"""Runs that are killed, interrupted, spread over processes or fed with bad numbers."""

import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mfik.data import FileSource, OnlineSource, generate
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
