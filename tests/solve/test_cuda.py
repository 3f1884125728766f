"""Solving on a device: all but the graph runs on the CPU too, through the function that CUDA tensors take."""

import importlib.resources
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mfik import kinematics
from mfik.errors import ArgumentError, BundleError
from mfik.export import NATIVE_FILE, document, write_native
from mfik.model import SingleStep
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.solve import Options, Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1.safetensors"
TOL = dict(tol_pos=1e-4, tol_rot=1e-4)
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="module", params=["v1", "v2"])
def solver(request) -> Solver:
    return Solver.load(GOLDEN.with_stem(request.param))


def targets(robot, n, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(11)
    q, q_ref = (robot.sample(n, generator, torch.float64) for _ in range(2))
    return robot.fk(q).to(device, dtype), q_ref.to(device, dtype)


def solve(solver, pose, q_ref, **options):
    return solver._solve_tensors(pose, q_ref, solver._checked(Options(**options)))


@pytest.mark.parametrize("name", ["panda", "ur10"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_it_solves_what_the_solver_in_cpp_solves(device, name, dtype):
    robot = load_robot(name)
    solver = Solver.from_robot(robot)
    pose, q_ref = targets(robot, 1000, device, dtype)
    result = solve(solver, pose, q_ref, **TOL)
    expected = solver.solve_batch(pose.cpu().double().numpy(), q_ref.cpu().double().numpy(), time_each=False, **TOL)
    assert result.q.device == pose.device and result.q.dtype == dtype and result.status.dtype == torch.int64
    solved = (result.status == Status.SOLVED).cpu()
    assert abs(solved.double().mean() - np.mean(expected.status == Status.SOLVED)) <= 0.002
    assert set(result.status.tolist()) <= {Status.SOLVED, Status.NOT_CONVERGED}
    q = result.q.double().cpu()
    assert robot.within_limits(q).all()
    reached, wanted = kinematics.fk(robot.chain, q), pose.double().cpu()
    rounding = 1e-7 if dtype == torch.float32 else 1e-12  # of the target's quaternion
    assert kinematics.position_error_m(reached, wanted)[solved].max() <= 1e-4 + rounding
    assert kinematics.rotation_error_rad(reached, wanted)[solved].max() <= 1e-4 + rounding


def test_pinocchio_judges_the_joints_alike(device):
    pin = pytest.importorskip("pinocchio", reason="needs pin")
    robot = load_robot("panda")
    model = pin.buildModelFromUrdf(str(importlib.resources.files("mfik.robots") / "urdf" / "panda.urdf"))
    data, frame = model.createData(), model.getFrameId(robot.tip_link)
    pose, q_ref = targets(robot, 1000, device)
    result = solve(Solver.from_robot(robot), pose, q_ref, **TOL)
    assert (result.status == Status.SOLVED).double().mean() >= 0.998
    columns = (pose.double(), result.q.double(), result.pos_error, result.rot_error)
    for target, q, pos, rot in zip(*(x.cpu().numpy() for x in columns), strict=True):
        pin.framesForwardKinematics(model, data, np.concatenate([q, np.zeros(model.nq - robot.dof)]))
        tool = data.oMf[frame]
        rotation = pin.Quaternion(target[3], *target[4:]).normalized().matrix()
        assert abs(np.linalg.norm(tool.translation - target[:3]) - pos) < 1e-9
        assert abs(np.linalg.norm(pin.log3(tool.rotation.T @ rotation)) - rot) < 1e-7


@pytest.mark.parametrize("seed", ["reference", "network", "midpoint", "azimuth"])
def test_every_first_seed_is_the_one_it_says(device, solver, seed):
    robot = solver.robot
    pose, q_ref = targets(robot, 300, device, torch.float64)
    first = solve(solver, pose, q_ref, seed=seed, max_iterations=0, max_attempts=1)
    assert (first.attempts == 1).all() and not first.iterations.any()
    lower, upper = robot.limits()
    midpoint = 0.5 * (lower + upper)
    got, pose, q_ref = first.q.cpu(), pose.cpu(), q_ref.cpu()
    if seed == "network":
        network = SingleStep(solver._load_network()).eval()
        with torch.no_grad():
            expected = robot.clamp(network(q_ref.float(), pose.float()).double())
            with torch.autocast(device.type, dtype=torch.bfloat16):
                rounded = SingleStep(solver._cuda._networks[device])(q_ref.to(device).float(), pose.to(device).float())
        assert torch.allclose(got, robot.clamp(rounded.cpu().double()), rtol=0, atol=1e-5)
        alike = (got - expected).abs().amax(-1) <= 0.05 * (expected - q_ref).abs().max()  # bfloat16 keeps 3 digits
        # Of type v2 another look may then be the best one.
        assert alike.float().mean() >= (1.0 if solver.metadata["model"]["type"] == "v1" else 0.98)
        assert (got - expected).abs().max() < (q_ref - expected).abs().max()
        return
    if seed == "azimuth":  # only the first joint moves, to the target's azimuth where its limits allow
        assert torch.allclose(got[:, 1:], midpoint[1:].expand(300, -1), rtol=0, atol=1e-6)
        reached = robot.fk(got)
        turn = torch.atan2(pose[:, 1], pose[:, 0]) - torch.atan2(reached[:, 1], reached[:, 0])
        free = (got[:, 0] > lower[0] + 1e-5) & (got[:, 0] < upper[0] - 1e-5)
        assert free.sum() > 200 and turn[free].sin().abs().max() < 1e-5 and turn[free].cos().min() > 0
        return
    expected = q_ref if seed == "reference" else midpoint.expand(300, -1)
    assert torch.allclose(got, robot.clamp(expected), rtol=0, atol=1e-6)


def test_geometry_stays_in_float32(device):
    """In bfloat16 the features of version 2 would hide where the last centimetre is."""
    solver = Solver.load(GOLDEN.with_stem("v2"))
    pose, q_ref = targets(solver.robot, 20, device)
    solve(solver, pose, q_ref, seed="network")  # brings the network to the device
    network, seen = solver._cuda._networks[pose.device], []
    network.geometry.register_forward_hook(lambda module, inputs, outputs: seen.append((inputs, outputs)))
    solve(solver, pose, q_ref, seed="network")
    looks = network.config.starts * (network.config.passes + 1)  # the last one of a start judges
    assert network.head.weight.dtype == torch.bfloat16 and len(seen) == looks
    (q, target), outputs = seen[0]
    assert all(x.dtype == torch.float32 for x in outputs)
    exact = solver._load_network().geometry.double()(q.cpu().double(), target.cpu().double())
    for got, expected in zip(outputs, exact, strict=True):
        assert (got.cpu() - expected).abs().max() < 1e-4


def test_more_attempts_solve_more(device):
    robot = load_robot("panda")
    pose, q_ref = targets(robot, 500, device)
    shares = []
    for attempts in (1, 2, 30):
        result = solve(Solver.from_robot(robot), pose, q_ref, max_attempts=attempts, **TOL)
        assert result.attempts.max() <= attempts
        shares.append((result.status == Status.SOLVED).double().mean())
    assert shares[0] + 0.1 < shares[1] < shares[2] - 0.1


def test_invalid_rows_have_a_status_and_harm_no_other(device, solver):
    for seed in ("reference", "network", "azimuth"):
        pose, q_ref = targets(solver.robot, 8, device)
        clean = solve(solver, pose, q_ref, seed=seed)
        pose[1, 3:] *= 1.01  # not a unit quaternion
        pose[2, 0], q_ref[3, 2], pose[4, 3:] = math.nan, math.inf, 0.0
        result = solve(solver, pose, q_ref, seed=seed)
        bad, good = [1, 2, 3, 4], [0, 5, 6, 7]
        assert (result.status[bad] == Status.INVALID_INPUT).all() and result.q[bad].isnan().all()
        assert torch.equal(result.status[good], clean.status[good]) and torch.equal(result.q[good], clean.q[good])


def test_no_rows_are_no_error(device, solver):
    pose, q_ref = targets(solver.robot, 0, device)
    result = solve(solver, pose, q_ref, seed="network")
    assert result.q.shape == (0, 7) and result.status.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(q_ref=torch.zeros(3, 6)), r"q_ref: expected \[3, 7\] torch.float32 on cpu like pose, got \[3, 6\]"),
        (dict(q_ref=torch.zeros(3, 7).double()), "q_ref: expected .* got .* torch.float64"),
        (dict(q_ref=np.zeros((3, 7))), "q_ref: expected a tensor on cpu like pose, got ndarray"),
        (dict(pose=torch.zeros(3, 6)), r"pose: expected \[N, 7\] torch.float32 or torch.float64, got \[3, 6\]"),
        (dict(pose=torch.zeros(3, 7, dtype=torch.float16)), "pose: expected .* got .* torch.float16"),
        (dict(nearest=True), "nearest: solving on CUDA takes .*'tol_pos'.* only"),
        (dict(tol_pos=-1.0), "tol_pos: "),
    ],
)
def test_bad_arguments_are_named(solver, change, message):
    with pytest.raises(ArgumentError, match=message):
        solve(solver, **{**dict(pose=torch.zeros(3, 7), q_ref=torch.zeros(3, 7)), **change})
    with pytest.raises(ArgumentError, match="seed: expected another than 'network'"):
        solve(Solver.from_robot(load_robot("panda")), torch.zeros(3, 7), torch.zeros(3, 7), seed="network")


def test_a_bundle_that_changed_on_disk_is_refused(tmp_path):
    robot = load_robot("panda")
    for width in (8, 16):
        model = MeanFlowNet(ModelConfig(width=width, num_blocks=1, cond_dim=8, encoding="none"))
        write_native(tmp_path / NATIVE_FILE, model, document(model, robot))
        if width == 8:
            solver = Solver.load(tmp_path)
    with pytest.raises(BundleError, match="has changed since it was loaded"):
        solve(solver, *targets(robot, 2, "cpu"), seed="network")


class NoScalars(TorchDispatchMode):
    """Refuses what makes the host wait for a device, and new tensors from the host's memory."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "lift_fresh", "_to_copy")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        moves = name != "_to_copy" or "device" in (kwargs or {})  # another dtype is no other place
        assert name not in self.FORBIDDEN or not moves, f"{func} makes the host wait"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("seed", ["reference", "network", "midpoint", "azimuth"])
def test_what_a_graph_captures_reads_no_number_back(solver, seed):
    pose, q_ref = targets(solver.robot, 5, "cpu")
    expected = solve(solver, pose, q_ref, seed=seed)  # brings constants and network to the device
    with torch.no_grad(), NoScalars():
        result = solver._cuda._run(pose, q_ref, Options(seed=seed))
    assert torch.equal(result.q, expected.q)
    with pytest.raises(AssertionError, match="makes the host wait"), NoScalars():
        q_ref.sum().item()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("seed", ["reference", "network"])
def test_replays_of_a_graph_solve_what_they_are_given(solver, seed):
    for n in (1, 1000, 4097):
        for scale in (1, -1):
            pose, q_ref = targets(solver.robot, n, "cuda")
            pose[:, 3:] *= scale
            pose, q_ref = (pose, q_ref) if scale == 1 else (pose.flip(0), q_ref.flip(0))
            result = solver.solve_batch(pose, q_ref, seed=seed, **TOL)
            with torch.no_grad():
                eager = solver._cuda._run(pose, q_ref, Options(seed=seed, **TOL))
            if seed == "reference":
                assert torch.equal(result.status, eager.status) and torch.equal(result.q, eager.q)
            else:  # products in bfloat16 may round otherwise, and a first seed lead elsewhere
                assert ((result.q - eager.q).abs().amax(-1) < 0.05).double().mean() >= 0.9 or n == 1
            kept = result.q.clone()
            solver.solve_batch(pose.roll(1, 0), q_ref, seed=seed, **TOL)
            assert torch.equal(result.q, kept)  # a later call leaves it alone
