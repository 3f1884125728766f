"""Solving on a device that is not there: graphs that are captured and replayed, and the differentiable layer."""

from pathlib import Path

import pytest
import torch
from device import FakeCuda

from mfik.ops import _backend
from mfik.solve import Options, Solver, Status
from mfik.torch import ik

GOLDEN = Path(__file__).parents[1] / "golden"
SOLVERS = {name: Solver.load(GOLDEN / f"{name}.safetensors") for name in ("v1", "v2")}


def targets(robot, n, dtype):
    generator = torch.Generator().manual_seed(11)
    q, q_ref = (robot.sample(n, generator, torch.float64) for _ in range(2))
    return robot.fk(q).to(dtype), q_ref.to(dtype)


@pytest.mark.parametrize(
    ("name", "seed"), [*(("v1", seed) for seed in ("reference", "network", "midpoint", "azimuth")), ("v2", "network")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_replay_solves_what_it_is_given_and_waits_for_nothing(name, dtype, seed):
    solver = Solver.load(GOLDEN / f"{name}.safetensors")
    pose, q_ref = targets(solver.robot, 9, dtype)
    pose[2, 3:] = 0  # no rotation
    q_ref[7] = torch.nan
    with FakeCuda() as cuda:
        empty = solver.solve_batch(pose[:0].cuda(), q_ref[:0].cuda(), seed=seed)
        assert empty.q.is_cuda and empty.q.shape == (0, 7) and not cuda.graphs
        solver.solve_batch(pose.flip(0).cuda(), q_ref.flip(0).cuda(), seed=seed)
        arguments = pose.cuda(), q_ref.cuda()
        cuda.waits.clear()
        result = solver.solve_batch(*arguments, seed=seed)
        assert not cuda.waits and [graph.replays for graph in cuda.graphs] == [2]
        kept = result.q.clone()
        solver.solve_batch(*(x.flip(0) for x in arguments), seed=seed)
        assert not cuda.waits
        values = [value.cpu() for value in result]
        kept = kept.cpu()
    with torch.no_grad():
        expected = solver._solve_tensors(pose, q_ref, solver._checked(Options(seed=seed)))
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(kept.nan_to_num(), values[0].nan_to_num()), "a later call leaves an answer alone"
    assert (values[1] == Status.INVALID_INPUT).nonzero().flatten().tolist() == [2, 7]


def test_the_last_graphs_are_kept():
    solver = Solver.from_robot(SOLVERS["v1"].robot)
    pose, q_ref = targets(solver.robot, 12, torch.float32)
    with FakeCuda() as cuda:
        for n in (*range(1, 10), 9, 1):
            solver.solve_batch(pose[:n].cuda(), q_ref[:n].cuda())
        assert len(cuda.graphs) == 10 and len(solver._cuda._graphs) == 8


def test_a_driver_that_refuses_the_kernels_is_named_once_and_pytorch_solves():
    solver = Solver.from_robot(SOLVERS["v1"].robot)
    pose, q_ref = targets(solver.robot, 9, torch.float64)
    with FakeCuda() as cuda:
        _backend.native.cuda_problem = lambda: "CUDA driver version is insufficient for CUDA runtime version"
        _backend._cuda_runs_on.cache_clear()
        arguments = pose.cuda(), q_ref.cuda()
        with pytest.warns(RuntimeWarning, match="driver version is insufficient.*update the NVIDIA driver") as warned:
            results = [solver.solve_batch(*arguments) for _ in range(2)]
        assert len(warned) == 1 and not cuda.launches and not cuda.graphs
        assert all((result.status == Status.SOLVED).all() for result in results)
    _backend._cuda_runs_on.cache_clear()


def test_the_layer_is_differentiable_on_the_device():
    solver = Solver.from_robot(SOLVERS["v1"].robot)
    pose, q_ref = targets(solver.robot, 5, torch.float32)
    gradients = []
    for place in ("cpu", "cuda"):
        with FakeCuda():
            given = pose.to(place).requires_grad_()
            q = ik(solver, given, q_ref.to(place))
            (gradient,) = torch.autograd.grad(q.square().sum(), given)
            assert q.device.type == gradient.device.type == place
            gradients.append(gradient.cpu())
    assert gradients[1].isfinite().all() and gradients[1].abs().sum() > 0
