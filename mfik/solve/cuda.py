"""Solving a batch on CUDA: network, refinement and check without leaving the device."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mfik import ops
from mfik.errors import ArgumentError
from mfik.kinematics import azimuth
from mfik.kinematics.turns import turn_to_azimuth
from mfik.robots import Robot
from mfik.solve.types import Options, Seed, Status, TensorResult

OPTIONS = ("tol_pos", "tol_rot", "max_iterations", "max_attempts", "seed")  # that solving on CUDA takes

_NETWORK_ROWS = 1 << 17  # evaluated at a time: the default network takes some 20 kB a row
_GRAPHS = 8  # kept, of the batch sizes and settings used last
_WARMUP_CALLS = 2  # before a capture: they choose kernels and allocate workspaces


class _Constants(NamedTuple):
    """What a solve reads on its device; a captured graph holds their addresses.

    Attributes:
        seeds: The starts after the first, [max_attempts - 1, J].
        midpoint: Of the limits, [J].
        base: Transform from the base to joint 1 before its motion, [3, 4].
        azimuth: Of FK(midpoint) about joint 1, [rad], [].
    """

    seeds: Tensor
    midpoint: Tensor
    base: Tensor
    azimuth: Tensor


class CudaSolver:
    """Solve poses on the device where they lie: first seed, `ops.solve`, status, as one graph.

    A graph is captured for each batch size, dtype and set of options, and the last few are kept with their memory. Not
    for several threads at a time. On the CPU, where tests hold it to the C++ solver, it runs without a graph.

    Args:
        robot: The robot.
        load_network: Returns its `MeanFlowNet`; called when the seed "network" is first asked for.
        quat_norm_tolerance: Largest distance of a target quaternion's norm from 1.
    """

    def __init__(self, robot: Robot, load_network: Callable[[], nn.Module], quat_norm_tolerance: float) -> None:
        self._robot, self._load_network, self._quat_norm_tolerance = robot, load_network, quat_norm_tolerance
        self._networks: dict[torch.device, nn.Module] = {}
        self._constants: dict[tuple, _Constants] = {}
        self._graphs: OrderedDict[tuple, tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor], TensorResult]] = (
            OrderedDict()
        )

    @torch.no_grad()
    def solve(self, pose: Tensor, q_ref: Tensor, options: Options) -> TensorResult:
        """Solve N poses.

        Args:
            pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], float32 or float64, [N, 7].
            q_ref: Joints to start from [rad or m], pose's dtype and device, [N, J].
            options: Of which those in `OPTIONS` count.

        Raises:
            ArgumentError: An argument has the wrong shape, dtype or device.
        """
        dof = self._robot.dof
        if pose.ndim != 2 or pose.shape[1] != 7 or pose.dtype not in (torch.float32, torch.float64):
            raise ArgumentError(
                f"pose: expected [N, 7] torch.float32 or torch.float64, got {list(pose.shape)} {pose.dtype}; "
                "give one pose per row"
            )
        if not isinstance(q_ref, Tensor):
            raise ArgumentError(f"q_ref: expected a tensor on {pose.device} like pose, got {type(q_ref).__name__}")
        if q_ref.shape != (len(pose), dof) or q_ref.dtype != pose.dtype or q_ref.device != pose.device:
            raise ArgumentError(
                f"q_ref: expected [{len(pose)}, {dof}] {pose.dtype} on {pose.device} like pose, got "
                f"{list(q_ref.shape)} {q_ref.dtype} on {q_ref.device}; convert with q_ref.to(pose)"
            )
        self._prepare(pose.device, pose.dtype, options)
        # The reference of the op waits for the device, which a graph cannot.
        if not pose.is_cuda or not len(pose) or not ops.has_kernel("solve", pose.device):
            return self._run(pose, q_ref, options)
        with torch.cuda.device(pose.device):
            return self._replay(pose, q_ref, options)

    def _replay(self, pose: Tensor, q_ref: Tensor, options: Options) -> TensorResult:
        key = (len(pose), pose.dtype, pose.device, *(getattr(options, name) for name in OPTIONS))
        if key not in self._graphs:
            inputs = (pose.clone(), q_ref.clone())
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARMUP_CALLS):
                    self._run(*inputs, options)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                outputs = self._run(*inputs, options)
            self._graphs[key] = (graph, inputs, outputs)
            if len(self._graphs) > _GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        graph, inputs, outputs = self._graphs[key]
        inputs[0].copy_(pose)
        inputs[1].copy_(q_ref)
        graph.replay()
        return TensorResult(*(value.clone() for value in outputs))

    def _run(self, pose: Tensor, q_ref: Tensor, options: Options) -> TensorResult:
        """Launch the work on the current stream, without waiting for it."""
        norm = torch.linalg.vector_norm(pose[:, 3:], dim=-1)
        valid = ((norm - 1).abs() <= self._quat_norm_tolerance) & q_ref.isfinite().all(-1)
        pose = torch.where(valid[:, None], pose, math.nan)  # such a row comes back as NaN
        constants = self._constants[self._constants_key(pose.device, pose.dtype, options)]
        start = self._first_seed(pose, q_ref, Seed(options.seed), constants)
        rows = ops.solve(
            self._robot,
            torch.where(start.isfinite(), start, q_ref),
            pose,
            constants.seeds,
            max_iterations=options.max_iterations,
            tol_pos=options.tol_pos,
            tol_rot=options.tol_rot,
        )
        valid = valid & (rows.attempts > 0)
        status = torch.where(valid, (~rows.converged).long() * Status.NOT_CONVERGED, int(Status.INVALID_INPUT))
        return TensorResult(rows.q, status, rows.pos_error, rows.rot_error, rows.iterations, rows.attempts)

    def _first_seed(self, pose: Tensor, q_ref: Tensor, seed: Seed, constants: _Constants) -> Tensor:
        """Return the joints to start from, [N, J]."""
        if seed is Seed.REFERENCE:
            return q_ref
        if seed is Seed.NETWORK:
            network = self._networks[pose.device]
            with torch.autocast(pose.device.type, dtype=torch.bfloat16):
                chunks = zip(q_ref.float().split(_NETWORK_ROWS), pose.float().split(_NETWORK_ROWS), strict=True)
                u = [network(q, target, torch.zeros_like(q[:, :1]), torch.ones_like(q[:, :1])) for q, target in chunks]
            return q_ref + torch.cat(u).to(q_ref.dtype)
        start = constants.midpoint.repeat(len(pose), 1)
        if seed is Seed.AZIMUTH and self._robot.kinds[0] != "prismatic":
            turn_to_azimuth(start, constants.azimuth, constants.base, pose[:, :3])
        return start

    def _prepare(self, device: torch.device, dtype: torch.dtype, options: Options) -> None:
        """Bring what `_run` reads to the device, before any capture."""
        key = self._constants_key(device, dtype, options)
        if key not in self._constants:
            robot = self._robot
            seeds = robot.sample(options.max_attempts - 1, torch.Generator().manual_seed(0), torch.float64)
            lower, upper = robot.limits()
            midpoint, base = 0.5 * (lower + upper), robot.chain.transforms()[0]
            direction = azimuth(base, robot.fk(midpoint)[:3])
            self._constants[key] = _Constants(*(x.to(device, dtype) for x in (seeds, midpoint, base, direction)))
        if options.seed is Seed.NETWORK and device not in self._networks:
            network = copy.deepcopy(self._load_network()).to(device).eval()
            for module in network.modules():
                if isinstance(module, nn.Linear):  # autocast leaves these alone; encoding and norms stay in float32
                    module.to(torch.bfloat16)
            self._networks[device] = network

    @staticmethod
    def _constants_key(device: torch.device, dtype: torch.dtype, options: Options) -> tuple:
        return device, dtype, options.max_attempts
