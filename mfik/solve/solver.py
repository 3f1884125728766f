"""The C++ solver from Python: seeds, bounded refinement, check by forward kinematics."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.export import NATIVE_FILE, document, load_bundle, write_native
from mfik.robots import Robot

if TYPE_CHECKING:
    from mfik.solve.cuda import DeviceSolver, TensorResult


_MODELS = Path(__file__).resolve().parents[1] / "models"


def pretrained_names() -> list[str]:
    """Return the names of the models that ship in the package, for `Solver.pretrained`."""
    return sorted(path.parent.name for path in _MODELS.glob(f"*/{NATIVE_FILE}"))


def model_path(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a pretrained model by its name, any other path as it is; a file of that name goes first."""
    path = Path(model)
    return _MODELS / path if not path.exists() and str(path) in pretrained_names() else path


class Status(IntEnum):
    """Outcome of a solve."""

    SOLVED = 0  # both errors within tolerance, every joint within its limits
    NOT_CONVERGED = 1  # the error was still falling when the iterations ran out
    UNREACHABLE = 2  # out of the arm's reach, or the best attempt ended where no joint motion lessens the error
    AT_LIMITS = 3  # joint limits hold the best attempt back, or the raw network answer violates one
    JUMP_BOUND = 4  # Solver.track only: no answer within max_step of q_prev
    INVALID_INPUT = 5  # C++ only: here invalid input raises ArgumentError


class Seed(str, Enum):
    """Where `Solver.solve` begins; later attempts begin at q_ref and at stored configurations that suit the target."""

    REFERENCE = "reference"  # q_ref: the default, because it measured fastest (docs/solver.md)
    NETWORK = "network"  # q_ref + u(q_ref, 0, 1), the network's answer
    MIDDLE = "middle"  # the middle of the limits
    TURNED = "turned"  # the middle with the first joint turned towards the target


@dataclass(frozen=True)
class Options:
    """Keyword arguments of `Solver.solve`, `track`, `solve_batch` and `solve_all`.

    Attributes:
        tol_pos: Largest accepted position error [m].
        tol_rot: Largest accepted rotation error [rad].
        max_iterations: Refinement steps of each attempt; 0 returns the first seed as it is.
        max_attempts: Seeds to try; 1: the first alone.
        seed: First seed, a `Seed` or its value.
        nearest: Spend every attempt and keep the solution nearest to q_ref (largest joint difference).
        tool: T_tip_tool, the tool that the target speaks of in the robot's tip frame, [7] like a pose.
        slack: Error accepted along and about the axes of the target frame beyond the tolerances, [6]: x, y, z [m] and
            rotation vector x, y, z [rad]; infinity frees the axis.
        locked: Indices of the joints that stay at q_ref.
        q_preferred: Posture to lean to with the motion that the target leaves free, [J].
        preference_gain: Share of the way to q_preferred taken in each step, 0 to 1.

    Raises:
        ArgumentError: A value is out of its range.
    """

    tol_pos: float = 1e-5
    tol_rot: float = 1e-5
    max_iterations: int = 12
    max_attempts: int = 160
    seed: Seed | str = Seed.REFERENCE
    nearest: bool = False
    tool: ArrayLike = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    slack: ArrayLike = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    locked: Sequence[int] = ()
    q_preferred: ArrayLike | None = None
    preference_gain: float = 0.1

    def __post_init__(self) -> None:
        native = _import_native()
        _number("tol_pos", self.tol_pos, 0.0, math.inf, "1e-5")
        _number("tol_rot", self.tol_rot, 0.0, math.inf, "1e-5")
        _number("preference_gain", self.preference_gain, 0.0, 1.0, "0.1")
        _integer("max_iterations", self.max_iterations, 0, native.MAX_ITERATIONS)
        _integer("max_attempts", self.max_attempts, 1, native.MAX_ATTEMPTS)
        if self.seed not in list(Seed):
            raise ArgumentError(f"seed: expected one of {[seed.value for seed in Seed]}, got {self.seed!r}")
        slack = _array("slack", self.slack, (6,))
        if not (slack >= 0).all():
            raise ArgumentError(f"slack: expected 6 numbers of at least 0, got {slack.tolist()}; inf frees an axis")
        _poses(_array("tool", self.tool, (7,)), "tool")

    def native(self, dof: int) -> Any:
        """Return the options of the C++ solver of a robot with `dof` joints."""
        if isinstance(self.locked, (int, np.integer, str)):
            raise ArgumentError(f"locked: expected indices of joints, such as [2], got {self.locked!r}")
        for joint in self.locked:
            _integer("locked", joint, 0, dof - 1)
        preferred = (
            [] if self.q_preferred is None else _finite(_array("q_preferred", self.q_preferred, (dof,)), "q_preferred")
        )
        return _import_native().Options(
            float(self.tol_pos),
            float(self.tol_rot),
            int(self.max_iterations),
            int(self.max_attempts),
            list(Seed).index(Seed(self.seed)),
            bool(self.nearest),
            np.asarray(self.tool, dtype=np.float64).tolist(),
            np.asarray(self.slack, dtype=np.float64).tolist(),
            sum({1 << int(joint) for joint in self.locked}),
            list(preferred),
            float(self.preference_gain),
        )


@dataclass(frozen=True)
class Result:
    """Outcome of `Solver.solve`, `track` and `solve_all`.

    Attributes:
        q: Best joints found [rad or m], [J], float64; from `solve_all` the solutions, [M, J]. Of all equivalent turns
            of a joint the one nearest to the reference within the limits. Check `status` before moving.
        status: Whether q solves the pose.
        pos_error: Distance between the target and FK(q) beyond the slack, [m]; the largest of all solutions.
        rot_error: Angle between the target and FK(q) beyond the slack, [rad]; likewise.
        iterations: Refinement steps taken one after the other.
        attempts: Seeds begun.
        time_us: Wall time, measured in C++, [us].
        reason: Why it ended so, in words; `Solver.explain` adds numbers.
    """

    q: np.ndarray
    status: Status
    pos_error: float
    rot_error: float
    iterations: int
    attempts: int
    time_us: float
    reason: str


@dataclass(frozen=True)
class BatchResult:
    """Outcome of `Solver.solve_batch`: `Result` by rows.

    Attributes:
        q: Best joints found [rad or m], [N, J], float64.
        status: `Status` values, [N], int64.
        pos_error: Distance between the target and FK(q), [m], [N].
        rot_error: Angle between the target and FK(q), [rad], [N].
        iterations: Refinement steps taken one after the other, [N], int64.
        attempts: Seeds begun, [N], int64.
        time_us: Wall time of each solve, measured in C++, [us], [N]; None when not asked for.
    """

    q: np.ndarray
    status: np.ndarray
    pos_error: np.ndarray
    rot_error: np.ndarray
    iterations: np.ndarray
    attempts: np.ndarray
    time_us: np.ndarray | None


class Solver:
    """Inverse kinematics of one robot, with its exported network; make it with `Solver.load`
    or, without a network, `Solver.from_robot`.

    Attributes:
        robot: The robot that the network was trained for.
        metadata: The bundle's JSON document: format, robot, model, training, accuracy.
    """

    def __init__(self, native: Any, robot: Robot, metadata: dict[str, Any], path: str | os.PathLike[str]) -> None:
        self._native = native
        self._path = path
        self._on_device: DeviceSolver | None = None
        self.robot = robot
        self.metadata = metadata

    @classmethod
    def load(cls, path: str | os.PathLike[str], robot: Robot | None = None) -> Solver:
        """Read a bundle: its folder, or the `model.safetensors` in it.

        Args:
            path: The bundle.
            robot: The robot that will be driven, to make sure that the bundle is for it; default any.

        Raises:
            BundleError: The bundle is missing, malformed, foreign, of another version, or for another robot.
            ImportError: The native extension is missing.
        """
        native = _import_native().Solver.load(os.fsencode(path))
        metadata = json.loads(native.metadata_json)
        try:
            own = Robot.from_dict(metadata["robot"])
        except RobotError as error:
            raise BundleError(f"{os.fspath(path)}: {error}") from error
        if robot is not None and robot.fingerprint() != own.fingerprint():
            raise BundleError(
                f"{os.fspath(path)}: expected a bundle for robot '{robot.name}' ({robot.base_link} -> "
                f"{robot.tip_link}, {robot.dof} joints), got one for '{own.name}' ({own.base_link} -> {own.tip_link}, "
                f"{own.dof} joints) with other joints, limits or transforms; train and export for this robot"
            )
        return cls(native, own, metadata, path)

    @classmethod
    def pretrained(cls, name: str) -> Solver:
        """Load a model that ships in the package; each has a card, `mfik/models/NAME/README.md`.

        Args:
            name: One of `pretrained_names()`, such as "panda".

        Raises:
            ArgumentError: There is no such model.
            ImportError: The native extension is missing.
        """
        if name not in pretrained_names():
            raise ArgumentError(
                f"name: expected one of {pretrained_names()}, got {name!r}; train another robot's with scripts/fit.py"
            )
        return cls.load(_MODELS / name)

    @classmethod
    def from_robot(cls, robot: Robot) -> Solver:
        """Return a solver for any robot, without a network.

        Raises:
            ImportError: The native extension is missing.
        """
        with tempfile.TemporaryDirectory() as folder:
            write_native(Path(folder) / NATIVE_FILE, None, document(None, robot))
            return cls.load(folder)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return self._native.dof

    @property
    def lanes(self) -> int:
        """Number of attempts refined at a time on this machine."""
        return self._native.lanes

    def num_parameters(self) -> int:
        """Return the number of trained scalars of the network."""
        return self._native.num_parameters

    def solve(self, pose: ArrayLike, q_ref: ArrayLike, **options: Any) -> Result:
        """Find joints that bring the tool to a pose.

        Args:
            pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [7].
            q_ref: Joints to start from [rad or m], finite, may lie outside the limits, [J].
            options: See `Options`.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        pose = _poses(_array("pose", pose, (7,)), "pose")
        q_ref = _finite(_array("q_ref", q_ref, (self.dof,)), "q_ref")
        return self._result(self._native.solve, pose, q_ref, self._options(options))

    def track(self, pose: ArrayLike, q_prev: ArrayLike, max_step: float, **options: Any) -> Result:
        """Follow a path: refine from q_prev, no joint further than `max_step` from it whatever the status.

        Args:
            pose: T_base_tool, see `solve`, [7].
            q_prev: Joints now [rad or m], [J].
            max_step: Largest change of any joint [rad or m].
            options: See `Options`; `seed`, `max_attempts` and `nearest` have no meaning here. The tolerances decide on
                the status; refinement goes on to 1e-9 m and rad, so that a slow path is not taken in stops and jumps.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        pose = _poses(_array("pose", pose, (7,)), "pose")
        q_prev = _finite(_array("q_prev", q_prev, (self.dof,)), "q_prev")
        _positive("max_step", max_step)
        return self._result(self._native.track, pose, q_prev, float(max_step), self._options(options))

    def solve_all(
        self, pose: ArrayLike, n: int, q_ref: ArrayLike | None = None, *, min_distance: float = 0.1, **options: Any
    ) -> Result:
        """Find up to n different solutions, spread over all that `max_attempts` seeds lead to.

        Args:
            pose: T_base_tool, see `solve`, [7].
            n: Number of solutions wanted.
            q_ref: Joints [rad or m], [J]: the nearest solution comes first, turns are chosen nearest to it, locked
                joints stay there. Default: the middle of the limits.
            min_distance: Two solutions differ when some joint differs by more than this [rad or m].
            options: See `Options`.

        Returns:
            Solutions q [M, J], M <= n: after the first always the one farthest from those before it.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        pose = _poses(_array("pose", pose, (7,)), "pose")
        _integer("n", n, 1, 100_000)
        if q_ref is None:
            q_ref = 0.5 * (self.robot.lower + self.robot.upper)
        q_ref = _finite(_array("q_ref", q_ref, (self.dof,)), "q_ref")
        _positive("min_distance", min_distance)
        return self._result(self._native.solve_all, pose, q_ref, int(n), float(min_distance), self._options(options))

    def solve_batch(
        self, pose: ArrayLike, q_ref: ArrayLike, *, time_each: bool = True, threads: int = 1, **options: Any
    ) -> BatchResult | TensorResult:
        """Solve N poses, each exactly as `solve` would; other Python threads run meanwhile.

        CUDA tensors are solved on their device, where they stay: first seed (of the network in bfloat16), refinement
        in float32, check in float64 and status are one CUDA graph for each N, captured in the first call, and nothing
        waits for the device. The attempts after the first begin at configurations drawn once from within the limits, so
        the joints may be others than the CPU's. A pose or reference that is invalid is no error but status
        INVALID_INPUT.

        Args:
            pose: T_base_tool, see `solve`, [N, 7]; on CUDA float32 or float64.
            q_ref: Joints to start from [rad or m], [N, J]; on CUDA pose's dtype and device.
            time_each: Report the time of each solve; without meaning on CUDA.
            threads: Threads to use; the results do not depend on it. Without meaning on CUDA.
            options: See `Options`; on CUDA tol_pos, tol_rot, max_iterations, max_attempts and seed.

        Returns:
            Arrays; of CUDA tensors, tensors on their device.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        if isinstance(pose, torch.Tensor) and pose.is_cuda:
            return self._solve_on_device(pose, q_ref, options)
        pose = _poses(_array("pose", pose, (None, 7)), "pose")
        q_ref = _finite(_array("q_ref", q_ref, (len(pose), self.dof)), "q_ref")
        _integer("threads", threads, 1, 1024)
        arguments = (pose, q_ref, self._options(options), bool(time_each), int(threads))
        return BatchResult(*_checked_call(self._native.solve_batch, *arguments))

    def _solve_on_device(self, pose: torch.Tensor, q_ref: torch.Tensor, options: dict[str, Any]) -> TensorResult:
        """Do what `solve_batch` does with CUDA tensors, with tensors on any device."""
        from mfik.solve.cuda import OPTIONS, DeviceSolver  # it imports this module

        checked = self._checked(options)
        other = sorted(set(options) - set(OPTIONS))
        if other:
            raise ArgumentError(f"{other[0]}: solving on a device takes {list(OPTIONS)} only; call pose.cpu() for it")
        if self._on_device is None:
            tolerance = _import_native().QUAT_NORM_TOLERANCE
            self._on_device = DeviceSolver(self.robot, self._load_network, tolerance)
        return self._on_device.solve(pose, q_ref, checked)

    def _load_network(self) -> torch.nn.Module:
        network, _, metadata = load_bundle(self._path)
        if metadata != self.metadata:
            raise BundleError(f"{os.fspath(self._path)}: has changed since it was loaded; load the solver again")
        return network

    def explain(self, result: Result) -> str:
        """Return a result of `solve` or `track` in a sentence or two, with numbers and the joints at their limits."""
        fields = (result.pos_error, result.rot_error, result.iterations, result.attempts, result.reason)
        return self._native.explain(result.q, int(result.status), *fields)

    def _options(self, options: dict[str, Any]) -> Any:
        return self._checked(options).native(self.dof)

    def _checked(self, options: dict[str, Any]) -> Options:
        unknown = sorted(set(options) - set(Options.__dataclass_fields__))
        if unknown:
            raise ArgumentError(f"{unknown[0]}: no such option; expected some of {list(Options.__dataclass_fields__)}")
        options = Options(**options)
        if Seed(options.seed) is Seed.NETWORK and self.num_parameters() == 0:
            raise ArgumentError("seed: expected another than 'network', because this solver was made without a network")
        return options

    def _result(self, call: Any, *args: Any) -> Result:
        q, status, *rest = _checked_call(call, *args)
        return Result(q, Status(status), *rest)


def _checked_call(call: Any, *args: Any) -> Any:
    """Call the C++ solver, whose refusals name the argument."""
    try:
        return call(*args)
    except ValueError as error:
        raise ArgumentError(str(error)) from error


def _import_native() -> ModuleType:
    try:
        from mfik import _native
    except ImportError as error:
        raise ImportError(
            f"mfik._native, which holds the C++ solver, cannot be imported ({error}); "
            "build it with: pip install -e . (needs a C++17 compiler)"
        ) from error
    return _native


def _array(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return a float64 array of the given shape; None is any size."""
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise ArgumentError(f"{name}: expected a tensor on cpu, got one on {value.device}; call .cpu()")
        value = value.detach()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: expected numbers, got {type(value).__name__} ({error})") from error
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        expected = ", ".join("N" if size is None else str(size) for size in shape)
        other = "solve_batch" if array.ndim == 2 else "solve"
        known = name in ("pose", "q_ref") and array.ndim != len(shape)
        remedy = f"Solver.{other} takes that many dimensions" if known else "check its size"
        raise ArgumentError(f"{name}: expected shape [{expected}], got {list(array.shape)}; {remedy}")
    return array


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ArgumentError(
            f"{name}{list(index)}: expected a finite number, got {array[index]}; check where it comes from"
        )
    return array


def _poses(poses: np.ndarray, name: str) -> np.ndarray:
    """Return poses [..., 7] after checking values and quaternion norms."""
    _finite(poses, name)
    norm = np.linalg.norm(poses[..., 3:], axis=-1)
    wrong = np.abs(norm - 1.0) > _import_native().QUAT_NORM_TOLERANCE
    if wrong.any():
        row = np.argwhere(wrong)[0]
        where = f"{name}[{row[0]}]" if poses.ndim == 2 else name
        quat = poses[tuple(row)][3:]
        raise ArgumentError(
            f"{where}: expected a unit quaternion (qw, qx, qy, qz) in its last four numbers, got {quat.tolist()} "
            f"of norm {norm[tuple(row)]:.6g}; divide it by its norm, and check the order [x, y, z, qw, qx, qy, qz]"
        )
    return poses


def _number(name: str, value: Any, low: float, high: float, default: str) -> None:
    try:
        valid = bool(np.isfinite(value)) and low <= value <= high
    except (TypeError, ValueError):
        valid = False
    if not valid:
        expected = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ArgumentError(f"{name}: expected a finite number of {expected}, got {value!r}; the default is {default}")


def _positive(name: str, value: Any) -> None:
    _number(name, value, 0.0, math.inf, "0.1")
    if value == 0:
        raise ArgumentError(f"{name}: expected a number above 0, got {value!r}")


def _integer(name: str, value: Any, low: int, high: int) -> None:
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or not low <= value <= high:
        raise ArgumentError(f"{name}: expected an integer from {low} to {high}, got {value!r}")
