"""Time one evaluation of the network in every engine, beside reading its weights once, all in one run.

    python benchmarks/engines.py [--networks v1 v2] [--presets tiny] [--onnxruntime FOLDER] [--seconds 20]
    python benchmarks/engines.py --models panda ur10 tiago

Builds benchmarks/engines.cpp with the engines that can be built here, and random weights in the sizes of the presets.
Where ONNX Runtime's C headers are not found, PyPI's onnxruntime is timed from Python instead, and the table says so.
Batches are shared out among the threads that call; within a call every engine runs on one thread.

With --models the graphs of models that ship are timed instead, from any reference to any pose, on one thread: one pose
a call and what a look takes of it, and rows of a call of 1,000.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from native import build

from mfik.export import ONNX_FILE, document, export_bundle, load_bundle
from mfik.export.graphs import onnx_model, torchscript
from mfik.model import NETWORK_TYPES, Network, SingleStep, make_network
from mfik.robots import load_robot

ROOT = Path(__file__).resolve().parents[1]
SIZES = {name: tuple(entry.config.SIZES) for name, entry in NETWORK_TYPES.items()}


def time_python_onnxruntime(bundle: Path, rows: int, seconds: float) -> list[float]:
    """Return the sorted times per row [us] of PyPI's onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(bundle / ONNX_FILE), options, providers=["CPUExecutionProvider"])
    robot, generator = load_robot("panda"), torch.Generator().manual_seed(1)
    q = robot.sample(rows, generator)
    inputs = {"q_ref": q.numpy(), "target_pose": robot.fk(q).numpy()}
    times: list[float] = []
    end = time.perf_counter() + seconds
    session.run(None, inputs)
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        times.append((time.perf_counter() - start) * 1e6 / rows)
    return sorted(times)


def looks_of(model: Network, q_ref: torch.Tensor, pose: torch.Tensor) -> np.ndarray:
    """Return how often the network looks at the geometry in each row's evaluation."""
    looks, look = 0, model.look

    def counted(q: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal looks
        looks += len(q)
        return look(q, *inputs)

    model.look, counts = counted, []
    network = SingleStep(model)
    for i in range(len(q_ref)):
        looks = 0
        network(q_ref[i : i + 1], pose[i : i + 1])
        counts.append(looks)
    del model.look
    return np.array(counts)


@torch.inference_mode()
def time_graphs(name: str, num: int = 1000) -> None:
    """Print what evaluations of a shipped model's graphs take."""
    import onnxruntime

    options, torch_rows = onnxruntime.SessionOptions(), torch.Generator().manual_seed(1)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    torch.set_num_threads(1)
    model, robot, _ = load_bundle(ROOT / "mfik" / "models" / name)
    onnx = onnx_model(model, robot, "{}").SerializeToString()
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    script = torch.jit.load(io.BytesIO(torchscript(model, robot, "{}")))
    q_ref, pose = robot.sample(num, torch_rows), robot.fk(robot.sample(num, torch_rows, torch.float64)).float()
    engines = {
        "ONNX Runtime": lambda q, x: session.run(None, {"q_ref": q.numpy(), "target_pose": x.numpy()}),
        "TorchScript": script,
    }
    looks = looks_of(model, q_ref, pose)
    for engine, run in engines.items():
        singles, batches = [], []
        for rows, times in ((1, singles), (num, batches)):
            for repeat in range(-1, 3):  # the first one warms up
                for i in range(0, num, rows):
                    start = time.perf_counter()
                    run(q_ref[i : i + rows], pose[i : i + rows])
                    if repeat >= 0:
                        times.append(time.perf_counter() - start)
        single = np.median(np.reshape(singles, (3, num)), 0)
        each, fixed = np.polyfit(looks, single, 1) * 1e6
        print(
            f"{name:>8} {engine:<14} one pose {np.median(single) * 1e6:7.0f} us of {np.median(looks):.0f} looks "
            f"(p50; {fixed:.0f} us and {each:.0f} a look), rows of {num} {np.median(batches) / num * 1e6:6.1f} us"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxruntime", help="folder with ONNX Runtime's include/ and lib/")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each preset")
    parser.add_argument("--networks", nargs="+", choices=NETWORK_TYPES, default=tuple(NETWORK_TYPES), help="types")
    parser.add_argument("--presets", nargs="+", choices=sorted(set().union(*SIZES.values())), help="default: all")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="time the graphs of models that ship instead")
    args = parser.parse_args()

    if args.models is not None:
        print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for name in args.models:
            time_graphs(name)
        return
    robot = load_robot("panda")
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; time per row [us]")
    titles = f"{'network':>22} {'engine':<24} {'rows':>5} {'threads':>7}"
    print(f"{titles} {'10 %':>10} {'median':>10} {'90 %':>10} {'calls':>7}")
    with tempfile.TemporaryDirectory() as name:
        options = ["-DMFIK_TORCHSCRIPT=ON", "-DMFIK_ONNX=ON", f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"]
        options += [] if args.onnxruntime is None else [f"-DONNXRuntime_ROOT={args.onnxruntime}"]
        program = build("mfik_bench_engines", Path(name) / "build", *options)
        networks = [(kind, preset) for kind in args.networks for preset in SIZES[kind]]
        for kind, preset in networks:
            if args.presets is not None and preset not in args.presets:
                continue
            torch.manual_seed(0)
            model = make_network(kind, preset, robot).eval()
            torch.nn.init.normal_(model.head.weight, std=0.02)  # zero in an untrained network
            bundle = Path(name) / f"{kind}_{preset}"
            export_bundle(bundle, model, document(model, robot))
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            command = [program, bundle, str(args.seconds)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            lines = [line.split("\t") for line in out.splitlines()]
            if not any(line[0] == "onnx" for line in lines):
                for rows in (1, 8, 1024):
                    times = time_python_onnxruntime(bundle, rows, args.seconds / 20)
                    quantiles = [f"{x:.9g}" for x in np.quantile(times, (0.1, 0.5, 0.9))]
                    lines.append(["onnxruntime in Python", str(rows), "1", *quantiles, str(len(times))])
            label = f"{kind} {preset}, {model.num_parameters() / 1e6:.2f}M"
            for engine, rows, threads, *quantiles, calls in lines:
                numbers = " ".join(f"{float(x):10.2f}" for x in quantiles)
                print(f"{label:>22} {engine:<24} {rows:>5} {threads:>7} {numbers} {calls:>7}")


if __name__ == "__main__":
    main()
