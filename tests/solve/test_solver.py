import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mfik.errors import ArgumentError, BundleError
from mfik.export import NATIVE_FILE, document, write_native
from mfik.model import SingleStep, v2
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.solve import Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FLOAT32_RAD = 1e-5  # agreement of C++ and PyTorch in float32; 1e-6 seen up to 1M parameters


@pytest.fixture(scope="module")
def solver() -> Solver:
    return Solver.load(GOLDEN / "v1.safetensors")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return {name: np.array(rows) for name, rows in json.loads((GOLDEN / "v1.json").read_text()).items()}


@pytest.fixture(scope="module")
def local(solver) -> tuple[np.ndarray, np.ndarray]:
    """Reachable poses, and references near their solutions."""
    generator = torch.Generator().manual_seed(5)
    q = solver.robot.sample(200, generator, torch.float64)
    q_ref = q + 0.1 * torch.randn(q.shape, generator=generator, dtype=q.dtype)
    return solver.robot.fk(q).numpy(), q_ref.numpy()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_one_step_agrees_with_the_golden_set(version):
    solver = Solver.load(GOLDEN / f"{version}.safetensors")
    golden = {name: np.array(rows) for name, rows in json.loads((GOLDEN / f"{version}.json").read_text()).items()}
    out = solver.solve_batch(golden["target_pose"], golden["q_ref"], max_iterations=0, seed="network")
    np.testing.assert_allclose(out.q, golden["q_solution"], rtol=0, atol=FLOAT32_RAD)
    assert (out.iterations == 0).all()


@pytest.mark.parametrize("robot_name", ["panda", "ur10"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 128, "num_blocks": 2, "cond_dim": 64, "encoding": "none"},
        {"width": 256, "num_blocks": 5, "cond_dim": 128, "encoding_dim": 16},
        {"width": 33, "num_blocks": 1, "cond_dim": 5, "encoding": "fourier", "encoding_dim": 6},
        {"width": 1, "num_blocks": 3, "cond_dim": 1, "encoding_dim": 4},
        {"width": 100, "num_blocks": 1, "cond_dim": 40, "encoding_dim": 256, "encoding_scale": 300.0},
    ],
)
def test_one_step_agrees_with_pytorch(tmp_path, robot_name, sizes):
    torch.manual_seed(0)
    robot = load_robot(robot_name)
    model = MeanFlowNet(ModelConfig(dof=robot.dof, **sizes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    write_native(tmp_path / NATIVE_FILE, model, document(model, robot))
    loaded = Solver.load(tmp_path)
    assert loaded.num_parameters == model.num_parameters()
    q_ref, pose = robot.sample(50, dtype=torch.float32), robot.fk(robot.sample(50, dtype=torch.float32))
    with torch.no_grad():
        expected = SingleStep(model)(q_ref, pose)
    out = loaded.solve_batch(pose, q_ref, max_iterations=0, seed="network")
    np.testing.assert_allclose(out.q, expected.numpy(), rtol=0, atol=FLOAT32_RAD)


@pytest.mark.parametrize(("width", "num_blocks"), [(128, 3), (33, 1), (1, 2), (200, 2)])
def test_one_step_of_version_2_agrees_with_pytorch(tmp_path, any_robot, width, num_blocks):
    robot = any_robot
    torch.manual_seed(0)
    model = v2.MeanFlowNet(v2.ModelConfig(robot.dof, width, num_blocks, passes=4, starts=1), robot).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    write_native(tmp_path / NATIVE_FILE, model, document(model, robot))
    loaded = Solver.load(tmp_path)
    assert loaded.num_parameters == model.num_parameters()
    q_ref, pose = robot.sample(50, dtype=torch.float32), robot.fk(robot.sample(50, dtype=torch.float32))
    with torch.no_grad():
        expected = SingleStep(model)(q_ref, pose)
    options = dict(max_iterations=0, seed="network")
    out = loaded.solve_batch(pose, q_ref, **options)
    np.testing.assert_allclose(out.q, expected.numpy(), rtol=0, atol=FLOAT32_RAD)
    alone = [loaded.solve(pose[i], q_ref[i], **options).q for i in range(50)]
    np.testing.assert_array_equal(out.q, alone)


def test_solutions_reach_their_poses_within_limits(solver, local):
    pose, q_ref = local
    out = solver.solve_batch(pose, q_ref)
    solved = out.status == Status.SOLVED
    assert solved.mean() > 0.9
    assert solver.robot.within_limits(out.q).all()
    reached = solver.robot.fk(out.q)
    np.testing.assert_allclose(np.linalg.norm(reached - pose, axis=1)[solved], 0, atol=2e-5)
    assert ((out.pos_error <= 1e-5) & (out.rot_error <= 1e-5) == solved).all()


def test_errors_are_those_of_the_reference_kinematics(solver, golden):
    from mfik.kinematics import position_error_m, rotation_error_rad

    pose = torch.from_numpy(golden["target_pose"])
    out = solver.solve_batch(pose, golden["q_ref"], max_iterations=0, seed="network")
    reached = solver.robot.fk(torch.from_numpy(out.q))
    unit = torch.cat([pose[:, :3], torch.nn.functional.normalize(pose[:, 3:], dim=1)], dim=1)
    np.testing.assert_allclose(out.pos_error, position_error_m(reached, unit), atol=1e-12)
    np.testing.assert_allclose(out.rot_error, rotation_error_rad(reached, unit), atol=1e-12)


@pytest.mark.parametrize("threads", [1, 4])
def test_batch_is_a_loop(solver, local, threads):
    pose, q_ref = local
    out = solver.solve_batch(pose, q_ref, threads=threads)
    for i in range(len(pose)):
        one = solver.solve(pose[i], q_ref[i])
        assert (one.q == out.q[i]).all()
        assert isinstance(one.status, Status) and one.status == out.status[i]
        assert (one.pos_error, one.rot_error, one.iterations) == (
            out.pos_error[i],
            out.rot_error[i],
            out.iterations[i],
        )


def test_solver_may_be_shared_by_threads(solver, local):
    pose, q_ref = local
    expected = solver.solve_batch(pose, q_ref).q
    results = [None] * 4

    def work(k: int) -> None:
        rows = [solver.solve(p, q).q for p, q in zip(pose, q_ref, strict=True)]
        results[k] = np.array(rows) if k % 2 else solver.solve_batch(pose, q_ref).q

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_shapes_and_types_of_a_batch(solver, local):
    pose, q_ref = local
    out = solver.solve_batch(pose, q_ref)
    assert out.q.shape == q_ref.shape and out.q.dtype == np.float64
    for name in ("status", "pos_error", "rot_error", "iterations", "time_us"):
        assert getattr(out, name).shape == (len(pose),), name
    assert (out.time_us > 0).all()
    assert solver.solve_batch(pose, q_ref, time_each=False).time_us is None


def test_empty_batch(solver):
    out = solver.solve_batch(np.zeros((0, 7)), np.zeros((0, 7)), time_each=True, threads=4)
    assert out.q.shape == (0, 7) and out.status.shape == (0,) and out.time_us.shape == (0,)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.tolist(),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],  # strided
    ],
)
def test_arrays_lists_and_tensors_are_the_same(solver, local, convert):
    pose, q_ref = local
    expected = solver.solve_batch(pose, q_ref)
    np.testing.assert_array_equal(solver.solve_batch(convert(pose), convert(q_ref)).q, expected.q)
    np.testing.assert_array_equal(solver.solve(convert(pose)[0], convert(q_ref)[0]).q, expected.q[0])


def test_float32_is_accepted(solver, local):
    pose, q_ref = (torch.from_numpy(x).float() for x in local)
    assert (solver.solve_batch(pose, q_ref).status == Status.SOLVED).mean() > 0.9


def test_inputs_are_not_changed(solver, local):
    pose, q_ref = local
    before = pose.copy(), q_ref.copy()
    result = solver.solve(pose[0], q_ref[0])
    solver.solve_batch(pose, q_ref)
    np.testing.assert_array_equal(pose, before[0])
    np.testing.assert_array_equal(q_ref, before[1])
    assert not np.shares_memory(result.q, q_ref)


def test_quaternion_sign_does_not_matter(solver, local):
    pose, q_ref = local
    flipped = pose * np.array([1, 1, 1, -1, -1, -1, -1])
    np.testing.assert_allclose(solver.solve_batch(flipped, q_ref).q, solver.solve_batch(pose, q_ref).q, atol=1e-6)


def test_pose_beyond_the_reach_is_unreachable(solver):
    result = solver.solve([3, 0, 0, 1, 0, 0, 0], np.zeros(7))
    assert result.status is Status.UNREACHABLE
    assert result.pos_error > 1 and result.attempts == 1


def test_raw_answer_outside_the_limits_is_reported(solver):
    q_ref = solver.robot.upper + 3
    assert solver.solve([0.5, 0, 0.5, 1, 0, 0, 0], q_ref, max_iterations=0, seed="network").status is Status.AT_LIMITS
    assert solver.solve([0.5, 0, 0.5, 1, 0, 0, 0], q_ref).status is not Status.AT_LIMITS


POSE = [0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0]
Q = [0.0] * 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pose": POSE[:6]}, r"pose: expected shape \[7\], got \[6\]"),
        ({"pose": [POSE]}, r"pose: expected shape \[7\], got \[1, 7\]; Solver.solve_batch"),
        ({"pose": [*POSE[:3], 0, 0, 0, 0]}, r"pose: expected a unit quaternion .* norm 0"),
        ({"pose": [*POSE[:3], 1, 1, 0, 0]}, r"norm 1.41421; divide it by its norm"),
        ({"pose": [float("nan"), *POSE[1:]]}, r"pose\[0\]: expected a finite number, got nan"),
        ({"pose": "home"}, r"pose: expected numbers, got str"),
        ({"q_ref": Q[:6]}, r"q_ref: expected shape \[7\], got \[6\]"),
        ({"q_ref": [*Q[:6], float("inf")]}, r"q_ref\[6\]: expected a finite number, got inf"),
        ({"q_ref": None}, r"q_ref: expected"),
        ({"q_ref": [[0, 1], 2]}, r"q_ref: expected numbers"),
        ({"q_ref": torch.zeros(7, device="meta")}, r"q_ref: expected a tensor on cpu, got one on meta; call .cpu"),
        ({"tol_pos": -1e-5}, r"tol_pos: expected a finite number of at least 0, got -1e-05"),
        ({"tol_rot": float("nan")}, r"tol_rot: expected a finite number"),
        ({"tol_rot": "tight"}, r"tol_rot: expected a finite number"),
        ({"max_iterations": -1}, r"max_iterations: expected an integer from 0 to 1000, got -1"),
        ({"max_iterations": 1001}, r"max_iterations"),
        ({"max_iterations": 2.5}, r"max_iterations"),
    ],
)
def test_bad_arguments_of_solve(solver, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        solver.solve(**{"pose": POSE, "q_ref": Q} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pose": POSE}, r"pose: expected shape \[N, 7\], got \[7\]; Solver.solve takes"),
        ({"q_ref": [Q]}, r"q_ref: expected shape \[2, 7\], got \[1, 7\]"),
        ({"q_ref": [Q, [*Q[:6], float("nan")]]}, r"q_ref\[1, 6\]: expected a finite number"),
        ({"pose": [POSE, [*POSE[:3], 0, 0, 0, 2]]}, r"pose\[1\]: expected a unit quaternion"),
        ({"threads": 0}, r"threads: expected an integer from 1 to 1024, got 0"),
        ({"threads": 1.5}, r"threads"),
    ],
)
def test_bad_arguments_of_solve_batch(solver, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        solver.solve_batch(**{"pose": [POSE, POSE], "q_ref": [Q, Q]} | arguments)


def test_robot_and_metadata_come_from_the_bundle(solver):
    assert solver.robot.fingerprint() == load_robot("panda").fingerprint()
    assert solver.dof == 7
    assert solver.metadata["format"] == "mfik-bundle" and solver.metadata["model"]["width"] == 32


def test_a_solver_of_a_robot_alone_is_the_one_that_its_bundle_gives(tmp_path, any_robot):
    described = Solver.from_robot(any_robot)
    write_native(tmp_path / NATIVE_FILE, None, document(None, any_robot))
    read = Solver.load(tmp_path)
    assert described.metadata == read.metadata == document(None, any_robot) and described.num_parameters == 0
    pose, q_ref = any_robot.fk(any_robot.sample(20)), any_robot.sample(20)
    np.testing.assert_array_equal(described.solve_batch(pose, q_ref).q, read.solve_batch(pose, q_ref).q)


def test_load_accepts_the_right_robot_only():
    Solver.load(GOLDEN / "v1.safetensors", robot=load_robot("panda"))
    with pytest.raises(BundleError, match="expected a bundle for robot 'ur10'"):
        Solver.load(str(GOLDEN / "v1.safetensors"), robot=load_robot("ur10"))


def test_load_errors_are_bundle_errors(tmp_path):
    with pytest.raises(BundleError, match="no such file"):
        Solver.load(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BundleError, match=r"loop: cannot be read \(.*symbolic links\); check the path"):
        Solver.load(tmp_path / "loop")
    with pytest.raises(BundleError, match="path: expected one without NUL, got b'a"):
        Solver.load("a\0b")
    with pytest.raises(ArgumentError, match="path: expected a bundle's path, got None"):
        Solver.load(None)
    (tmp_path / "noise").write_bytes(b"\xff" * 100)
    with pytest.raises(BundleError, match="header length"):
        Solver.load(tmp_path / "noise")


def test_load_accepts_paths_that_are_not_ascii(tmp_path):
    folder = tmp_path / "größe \u4e2d"
    folder.mkdir()
    (folder / NATIVE_FILE).write_bytes((GOLDEN / "v1.safetensors").read_bytes())
    assert Solver.load(folder).dof == 7
    with pytest.raises(BundleError, match="größe"):
        Solver.load(folder / "none")


def test_missing_extension_says_what_to_do(monkeypatch):
    import mfik

    monkeypatch.setitem(sys.modules, "mfik._native", None)
    monkeypatch.delattr(mfik, "_native", raising=False)
    with pytest.raises(ImportError, match=r"pip install -e \."):
        Solver.load(GOLDEN / "v1.safetensors")
