"""The one command for who has a GPU, as far as it goes without one, and what it expects of a GPU."""

import json
import os
import subprocess
from pathlib import Path

import kernels
import pytest
import roofline
import torch
from programs import python
from torch import nn

from mfik.errors import ArgumentError
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "gpu_checks.sh"
ROWS = 1000


@pytest.fixture(scope="module")
def counted():
    """Return the kernels, with operations that a compiled program counts."""
    return {kernel.name: kernel for kernel in roofline.kernels(load_robot("panda"), roofline.count_operations(), 2, 20)}


@pytest.mark.slow
def test_the_dry_run_goes_through(tmp_path):
    path = f"{Path(python()).parent}:{os.environ['PATH']}"
    command = ["bash", SCRIPT, "--dry_run", tmp_path / "out"]
    run = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    report = (tmp_path / "out" / "report.md").read_text()
    for text in (
        "## kernels",
        "| sample_batch, shuffled |",
        "| tiny | 16 |",
        "| 10 | azimuth |",
        "## roofline",
        "epoch 1:",
    ):
        assert text in report
    assert all(json.loads(path.read_text())["results"] for path in (tmp_path / "out").glob("*.json"))
    assert (tmp_path / "out" / "training" / "checkpoints" / "final_model.pth").is_file()


def test_words_that_select_no_test_of_a_kernel_are_found(tmp_path):
    text = SCRIPT.read_text().replace(" first_start", " no_such_test")
    command = ["bash", "-c", text, SCRIPT, "--dry_run", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stderr == "no test of CUDA for -k no_such_test\n"


def test_bytes_are_those_that_the_benchmark_of_kernels_states(counted):
    robot, device = load_robot("panda"), torch.device("cpu")
    stated = kernels.streaming_kernels(ROWS, device, robot) + kernels.kinematics_kernels(ROWS, device, robot)
    for kernel in stated:
        if kernel.bytes_moved:
            assert kernel.bytes_moved == ROWS * counted[kernel.name].row.bytes_moved, kernel.name
        # What is counted by hand there leaves out branches here and there.
        if kernel.operations:
            assert sum(counted[kernel.name].row.operations.values()) == pytest.approx(kernel.operations / ROWS, rel=0.2)


def test_operations_are_those_of_the_formula(counted):
    """Of what is short enough to count by hand, for 7 joints."""
    expected = {
        "adaptive_weight": 7 * 3 + 3,  # differences squared and summed; plus c, root, reciprocal
        "its backward pass": 2 + 7,
        "weighted_residual_loss": 1 + 7 * 5 + 1,
        "sample_batch, shuffled": 3 + 1 + 7 * 7 + 3 + 4,  # per_remaining, elapsed, joints, weight, quaternion
    }
    assert {name: counted[name].row.operations["float32"] for name in expected} == expected


def test_a_step_counts_the_products_of_its_layers():
    robot = load_robot("panda")
    step = roofline.count_step("tiny", "v1", "tiny", robot)
    model, products = MeanFlowNet(ModelConfig.preset(7, "tiny")), 0.0
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            inputs_learn = name not in ("input", "condition")
            # Forward, tangents of a quarter of the rows, weight's gradient, input's gradient.
            products += 2 * layer.weight.numel() * (1 + 0.25 + 1 + inputs_learn)
    assert step.products() == pytest.approx(products, rel=1e-6)
    weights = sum(p.numel() for p in model.parameters())
    [adam] = [fixed for name, fixed, _ in step.launches if name.startswith("_fused_adamw")]
    # Parameter, gradient, two moments and, nearly nothing, step counts.
    assert adam.bytes_moved == pytest.approx(4 * 4 * weights, rel=0.01)
    assert step.seconds(roofline.GPUS["H100"], 256, fused=True) < step.seconds(roofline.GPUS["H100"], 256, fused=False)


def test_operators_are_counted_and_views_are_not():
    a, b = torch.ones(10, 4), torch.ones(4, 5)
    with roofline.Operators() as counted:
        (a @ b).view(50).add_(1.0).reshape(5, 10)
    assert counted.launches == [
        ("mm", roofline.Launch(4 * (40 + 20 + 50), {"float32": 2 * 10 * 4 * 5})),
        ("add_", roofline.Launch(2 * 4 * 50, {})),
    ]


def test_times_follow_from_the_data_sheet():
    gpu = roofline.Gpu(bandwidth=1e12, rates={"float32": 10e12, "float64": 1e12})
    memory, arithmetic = roofline.Launch(1e9, {"float32": 1e6}), roofline.Launch(8.0, {"float32": 1e10, "float64": 1e9})
    assert memory.seconds(gpu) == pytest.approx(1e-3) and arithmetic.seconds(gpu) == pytest.approx(2e-3)
    kernel = roofline.Kernel("k", 2, roofline.Launch(10.0, {}))
    assert kernel.seconds(gpu, 10**6) == pytest.approx(1e-5 + 2 * roofline.LAUNCH_S)


def test_measured_times_stand_beside_expected_ones(counted, tmp_path):
    kernel = counted["adaptive_weight"]
    expected = kernel.seconds(roofline.GPUS["H200"], 10**6)
    results = [{"kernel": kernel.name, "seconds": 2 * expected}]
    reports = {
        "kernels": {"hardware": "NVIDIA H200; a CPU", "rows": 10**6, "results": results},
        "train_step": {"results": []},
        "solve_gpu": {"results": [{"seed": "reference", "rows": 1, "seconds": 1e-3}, {"seed": "azimuth"}]},
    }
    for name, report in reports.items():
        with pytest.raises(ArgumentError, match=f"expected {name}.json"):
            roofline.measured_table(tmp_path, list(counted.values()), [])
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    lines = roofline.measured_table(tmp_path, list(counted.values()), []).splitlines()
    assert lines[0].startswith("| H200 |") and lines[2].startswith("| adaptive_weight | 1000000 |")
    assert lines[2].endswith("| 2.00 |") and len(lines) == 4
    reports["kernels"]["hardware"] = "another GPU"
    (tmp_path / "kernels.json").write_text(json.dumps(reports["kernels"]))
    assert "nothing is expected" in roofline.measured_table(tmp_path, list(counted.values()), [])
