"""One network, three files: what each holds, and what writing and reading refuse."""

import copy
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from mfik.errors import ArgumentError, BundleError
from mfik.export import (
    BUNDLE_FORMAT,
    CHECKSUMS_FILE,
    NATIVE_FILE,
    ONNX_FILE,
    TORCHSCRIPT_FILE,
    document,
    export_bundle,
    load_bundle,
    write_native,
)
from mfik.kinematics import fk, position_error_m, rotation_error_rad
from mfik.model import NETWORK_TYPES, SingleStep, v2
from mfik.model.v1 import ENCODINGS, MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.solve import Solver, Status

TOLERANCE_RAD = 1e-5  # the golden bound: every engine against PyTorch float32
GOLDEN = Path(__file__).parents[1] / "golden"


def make_model(dof=7, encoding="sinusoidal"):
    torch.manual_seed(1)
    model = MeanFlowNet(ModelConfig(dof=dof, width=48, num_blocks=2, cond_dim=24, encoding=encoding, encoding_dim=8))
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model, robot = make_model(), load_robot("panda")
    path = tmp_path_factory.mktemp("bundle") / "panda"
    description = document(model, robot, training={"steps": 3}, accuracy={"pos_mm_mean": 1.5})
    export_bundle(path, model, description)
    return path, model, robot, description


def run_everywhere(path, q_ref, pose):
    """Return q_solution of every engine for float32 arrays."""
    session = onnxruntime.InferenceSession(str(path / ONNX_FILE), providers=["CPUExecutionProvider"])
    scripted = torch.jit.load(str(path / TORCHSCRIPT_FILE))
    native = Solver.load(path).solve_batch(
        pose.astype(np.float64), q_ref.astype(np.float64), max_iterations=0, seed="network"
    )
    return {
        "torchscript": scripted(torch.from_numpy(q_ref), torch.from_numpy(pose)).numpy(),
        "onnx": session.run(["q_solution"], {"q_ref": q_ref, "target_pose": pose})[0],
        "native": native.q,
    }


def targets(robot, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pose = robot.fk(robot.sample(n, generator))
    pose[1::2, 3:] *= -1  # either sign of the quaternion
    return robot.sample(n, generator).numpy(), pose.numpy()


@pytest.mark.parametrize("network_type", NETWORK_TYPES)
def test_the_golden_file_holds_all_engines_together(network_type, tmp_path):
    golden = json.loads((GOLDEN / f"{network_type}.json").read_text())
    q_ref, pose, expected = (np.array(golden[name]) for name in ("q_ref", "target_pose", "q_solution"))
    model, _, description = load_bundle(GOLDEN / f"{network_type}.safetensors")
    export_bundle(tmp_path / "golden", model, description)
    q_ref, pose = q_ref.astype(np.float32), pose.astype(np.float32)
    with torch.no_grad():
        results = {"pytorch": SingleStep(model)(torch.from_numpy(q_ref), torch.from_numpy(pose)).numpy()}
    results.update(run_everywhere(tmp_path / "golden", q_ref, pose))
    assert np.abs(expected - q_ref).max() > 0.1, "a golden file of an untrained network proves nothing"
    for engine, q_solution in results.items():
        assert np.abs(q_solution - expected).max() < TOLERANCE_RAD, engine


def near_and_far(robot):
    """Return states and targets, 16 each: far, near, reached already, and on the first joint's axis."""
    q_ref, pose = (torch.from_numpy(x) for x in targets(robot, 64))
    generator = torch.Generator().manual_seed(3)
    near = q_ref[16:48].clone()
    near[:16] += 0.02 * torch.randn(16, robot.dof, generator=generator)
    pose[16:48] = robot.fk(near)
    base = robot.chain.transforms()[0]
    pose[48:, :3] = (base[:, 3] + 0.5 * base[:, 2]).float()
    pose[1::2, 3:] *= -1
    return q_ref, pose


@pytest.mark.parametrize("passes", [1, 4])
def test_a_network_of_type_v2_agrees_in_every_engine(any_robot, passes, tmp_path):
    """After one look everywhere; after several where they lead to the pose, as other rows amplify rounding."""
    robot = any_robot
    torch.manual_seed(0)
    model = v2.MeanFlowNet(v2.ModelConfig(robot.dof, width=128, num_blocks=3, passes=passes, starts=1), robot).eval()
    torch.nn.init.normal_(model.head.weight, std=0.05)
    export_bundle(tmp_path / "b", model, document(model, robot))
    q_ref, pose = near_and_far(robot)
    reached = fk(robot.chain, q_ref[32:48].double())
    assert rotation_error_rad(reached, pose[32:48].double()).max() < 1e-6
    for n in (64, 1):
        with torch.no_grad():
            expected = SingleStep(model)(q_ref[:n], pose[:n]).numpy()
            exact = SingleStep(copy.deepcopy(model).double())(q_ref[:n].double(), pose[:n].double()).numpy()
        error = position_error_m(fk(robot.chain, torch.from_numpy(exact)), pose[:n].double())
        rows = np.ones(n, dtype=bool) if passes == 1 else (error < 1e-3).numpy()
        assert n == 1 or rows.sum() >= 24
        results = run_everywhere(tmp_path / "b", q_ref[:n].numpy(), pose[:n].numpy())
        # C++ computes the geometry in double, and the layers in float32.
        assert np.abs(results["native"] - exact)[rows].max(initial=0) < 1e-6 * (1 + passes)
        for engine, q_solution in results.items():
            difference = np.abs(q_solution - expected)[rows]
            assert difference.max(initial=0) < TOLERANCE_RAD, (engine, n)
            assert n == 1 or np.median(difference) < 1e-6, engine


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("robot_name", ["panda", "ur10"])
def test_every_encoding_and_robot_agrees_at_every_batch_size(encoding, robot_name, tmp_path):
    robot = load_robot(robot_name)
    model = make_model(robot.dof, encoding)
    export_bundle(tmp_path / "b", model, document(model, robot))
    for n in (1, 2, 7):
        q_ref, pose = targets(robot, n)
        with torch.no_grad():
            expected = SingleStep(model)(torch.from_numpy(q_ref), torch.from_numpy(pose)).numpy()
        for engine, q_solution in run_everywhere(tmp_path / "b", q_ref, pose).items():
            assert np.abs(q_solution - expected).max() < TOLERANCE_RAD, (engine, n)


def test_every_file_carries_the_same_document(bundle):
    path, _, _, description = bundle
    extra = {"mfik": ""}
    torch.jit.load(str(path / TORCHSCRIPT_FILE), _extra_files=extra)
    properties = {p.key: p.value for p in onnx.load(path / ONNX_FILE).metadata_props}
    with safe_open(path / NATIVE_FILE, framework="pt") as file:
        native = file.metadata()["mfik"]
    documents = [json.loads(text) for text in (extra["mfik"], properties["mfik"], native)]
    assert documents == [description] * 3
    assert description["version"] == BUNDLE_FORMAT == 2 and description["training"] == {"steps": 3}


def test_load_bundle_gives_back_network_robot_and_document(bundle):
    path, model, robot, description = bundle
    loaded, loaded_robot, loaded_description = load_bundle(path)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in model.state_dict().items())
    assert loaded_robot.fingerprint() == robot.fingerprint() and loaded_description == description


def test_load_bundle_gives_back_a_network_of_type_v2(tmp_path):
    robot = load_robot("panda")
    model = v2.MeanFlowNet(v2.ModelConfig(width=24, num_blocks=2), robot)
    write_native(tmp_path / NATIVE_FILE, model, document(model, robot))
    loaded, loaded_robot, description = load_bundle(tmp_path)
    assert loaded.config == model.config and loaded_robot.fingerprint() == robot.fingerprint()
    assert description["model"] == {
        "type": "v2", "dof": 7, "width": 24, "num_blocks": 2, "passes": 12, "training_passes": 4,
        "starts": 6,
    }  # fmt: skip
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in model.state_dict().items())
    q_ref, pose = (torch.from_numpy(x) for x in targets(robot, 5))
    assert torch.equal(SingleStep(loaded)(q_ref, pose), SingleStep(model.eval())(q_ref, pose))


def test_nothing_is_overwritten_unasked(bundle, tmp_path):
    path, model, _, description = bundle
    export_bundle(tmp_path / "b", model, description)
    before = (tmp_path / "b" / NATIVE_FILE).read_bytes()
    assert (tmp_path / "b" / ONNX_FILE).read_bytes() == (path / ONNX_FILE).read_bytes(), "exports differ"
    other = make_model(encoding="none")
    with pytest.raises(BundleError, match="--overwrite"):
        export_bundle(tmp_path / "b", other, description)
    assert (tmp_path / "b" / NATIVE_FILE).read_bytes() == before
    export_bundle(tmp_path / "b", model, description, overwrite=True)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(BundleError, match="not a bundle"):
        export_bundle(tmp_path / "thesis", model, description, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "thesis"]


def test_a_full_disk_is_named_and_what_killed_exports_left_is_removed(tmp_path):
    """A limit on the size of files stands for the disk: the same error, from the same call."""
    left = tmp_path / "run.01234567.mfik-partial"
    left.mkdir()
    (left / NATIVE_FILE).write_bytes(b"half")
    script = Path(__file__).parents[2] / "scripts" / "export.py"
    for limit in (10_000, resource.RLIM_INFINITY):
        out = subprocess.run(
            [sys.executable, str(script), "--robot", "ur10", "--output", str(tmp_path / "run")],
            capture_output=True, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),  # noqa: B023
        )  # fmt: skip
        if limit == 10_000:
            last = out.stderr.strip().splitlines()[-1]
            assert last.startswith(f"error: {tmp_path / 'run'}: cannot be written, after 1"), out.stderr
            assert "File too large" in last and not list(tmp_path.iterdir())
    assert out.returncode == 0 and [path.name for path in tmp_path.iterdir()] == ["run"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_network_with_nan_is_not_exported(bundle, tmp_path):
    _, _, robot, description = bundle
    model = make_model()
    model.head.bias.data[0] = float("nan")
    with pytest.raises(BundleError, match="finite"):
        export_bundle(tmp_path / "b", model, description)
    assert not list(tmp_path.iterdir())


def test_numbers_that_json_lacks_are_not_exported(bundle, tmp_path):
    _, model, _, description = bundle
    with pytest.raises(BundleError, match="description: expected finite numbers"):
        export_bundle(tmp_path / "b", model, {**description, "accuracy": {"pos_mm_mean": float("nan")}})
    assert not list(tmp_path.iterdir())


def test_checksums_find_a_flipped_bit_in_any_file(bundle, tmp_path):
    path = shutil.copytree(bundle[0], tmp_path / "b")

    def differing() -> list[str]:
        """What `sha256sum -c SHA256SUMS` reports."""
        lines = [line.split("  ") for line in (path / CHECKSUMS_FILE).read_text().splitlines()]
        assert [name for _, name in lines] == [ONNX_FILE, NATIVE_FILE, TORCHSCRIPT_FILE]
        return [name for digest, name in lines if hashlib.sha256((path / name).read_bytes()).hexdigest() != digest]

    assert differing() == []
    for name in (NATIVE_FILE, TORCHSCRIPT_FILE, ONNX_FILE):
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
        assert differing() == [name]
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)


def test_loading_the_torchscript_needs_no_mfik(bundle):
    """What a controller's Python would do: plain torch."""
    path = bundle[0] / TORCHSCRIPT_FILE
    code = (
        f"import torch, sys; m = torch.jit.load({str(path)!r}); print(m(torch.zeros(1, 7), torch.ones(1, 7)).shape); "
    )
    code += "assert 'mfik' not in sys.modules"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert out.returncode == 0 and "[1, 7]" in out.stdout, out.stderr


def test_a_robot_alone_is_a_bundle_for_the_solver(tmp_path):
    robot = load_robot("ur10")
    export_bundle(tmp_path / "ur10", None, document(None, robot))
    assert sorted(file.name for file in (tmp_path / "ur10").iterdir()) == [CHECKSUMS_FILE, NATIVE_FILE]
    solver = Solver.load(tmp_path / "ur10", robot=robot)
    assert solver.num_parameters == 0
    q = robot.sample(1)
    assert solver.solve(robot.fk(q)[0], robot.sample(1)[0]).status is Status.SOLVED
    with pytest.raises(ArgumentError, match="made without a network"):
        solver.solve(robot.fk(q)[0], q[0], seed="network")
    with pytest.raises(BundleError, match="expected a network, got a robot alone"):
        load_bundle(tmp_path / "ur10")
