"""The C++ solver from Python: seeds, bounded refinement, check by forward kinematics."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.files import NATIVE_FILE, document
from mfik.kinematics import is_tensor
from mfik.native import load_native
from mfik.robots import Robot
from mfik.solve.checks import as_integer, as_joints, as_poses, as_positive, as_steps
from mfik.solve.clearance import Clearance, check_body, native_world
from mfik.solve.paths import PathResult, solve_path
from mfik.solve.types import BatchResult, Options, Result, Seed, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import ArrayLike
    from torch import Tensor, nn

    from mfik.collision import World
    from mfik.solve.cuda import CudaSolver
    from mfik.solve.types import TensorResult

_MODELS = Path(__file__).resolve().parents[1] / "models"
_DEFAULTS = tuple(field.default for field in Options.__dataclass_fields__.values())
_NO_TOOL, _NO_SLACK = Options.tool, Options.slack
_STATUSES = tuple(Status)


def pretrained_names() -> list[str]:
    """Return the names of the models that ship in the package, for `Solver.pretrained`."""
    return sorted(path.parent.name for path in _MODELS.glob(f"*/{NATIVE_FILE}"))


def model_path(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a pretrained model by its name, any other path as it is; a file of that name goes first."""
    path = Path(model)
    return _MODELS / path if not path.exists() and str(path) in pretrained_names() else path


class Solver:
    """Inverse kinematics of one robot, with its exported network; make it with `Solver.load`
    or, without a network, `Solver.from_robot`.

    Attributes:
        robot: The robot that the network was trained for.
        metadata: The bundle's JSON document: format, robot, model, training, accuracy.
    """

    def __init__(
        self, native: Any, robot: Robot, metadata: dict[str, Any], path: str | os.PathLike[str] | None
    ) -> None:
        self._native = native
        self._path = path
        self._cuda: CudaSolver | None = None
        self.robot = robot
        self.metadata = metadata

    @classmethod
    def load(cls, path: str | os.PathLike[str], robot: Robot | None = None) -> Solver:
        """Read a bundle: its folder, or the `model.safetensors` in it.

        Args:
            path: The bundle.
            robot: The robot that will be driven, to make sure that the bundle is for it; default any.

        Raises:
            ArgumentError: `path` is neither text nor a path, or `robot` is no Robot.
            BundleError: The bundle is missing, malformed, foreign, of another version, or for another robot.
            ImportError: The native extension is missing.
        """
        try:
            name = os.fsencode(path)
        except TypeError:
            raise ArgumentError(f"path: expected a bundle's path, got {path!r:.60}; give text or a Path") from None
        if b"\0" in name:
            raise BundleError(f"path: expected one without NUL, got {name!r:.60}; check where it comes from")
        if robot is not None and not isinstance(robot, Robot):
            raise ArgumentError(f"robot: expected a Robot or None, got {robot!r:.60}; load it with load_robot(...)")
        native = load_native().Solver.load(name)
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
            ArgumentError: `robot` is no Robot.
            ImportError: The native extension is missing.
        """
        if not isinstance(robot, Robot):
            raise ArgumentError(f"robot: expected a Robot, got {robot!r:.60}; load it with mfik.robots.load_robot(...)")
        native = load_native().Solver.from_description(json.dumps(document(None, robot)))
        return cls(native, robot, json.loads(native.metadata_json), None)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return self._native.dof

    @property
    def lanes(self) -> int:
        """Number of attempts refined at a time on this machine."""
        return self._native.lanes

    @property
    def num_parameters(self) -> int:
        """Number of trained scalars of the network; 0 without one."""
        return self._native.num_parameters

    def solve(
        self,
        pose: ArrayLike,
        q_ref: ArrayLike,
        *,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        max_iterations: int = 12,
        max_attempts: int = 160,
        seed: Seed | str = Seed.REFERENCE,
        nearest: bool = False,
        joint_weights: ArrayLike | None = None,
        tool: ArrayLike = _NO_TOOL,
        slack: ArrayLike = _NO_SLACK,
        locked: Sequence[int] = (),
        q_preferred: ArrayLike | None = None,
        preference_gain: float = 0.1,
        world: World | None = None,
        self_collision: bool | None = None,
        margin: float = 0.0,
        options: Options | None = None,
    ) -> Result:
        """Find joints that bring the tool to a pose.

        Args:
            pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [7]: an array, a list, a
                tuple, or a tensor on the CPU; or the transform, [4, 4].
            q_ref: Joints to start from [rad or m], finite, may lie outside the limits, [J].
            options: The other keywords as one object, instead of them; they are described at `Options`.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        given = (
            tol_pos, tol_rot, max_iterations, max_attempts, seed, nearest, joint_weights, tool, slack, locked,
            q_preferred, preference_gain, world, self_collision, margin,
        )  # fmt: skip
        asked = given if options is None else self._checked(options, given).native
        try:
            return _as_result(self._native.solve(pose, q_ref, asked))
        except ValueError:
            pass  # something has to be converted, or the checks say what is wrong with it
        pose, q_ref = as_poses("pose", pose, (7,)), as_joints("q_ref", q_ref, (self.dof,))
        checked = self._checked(options, given)
        checked.check_locked(self.robot, "q_ref", q_ref)
        return _as_result(_call(self._native.solve, pose, q_ref, checked.native))

    def track(
        self,
        pose: ArrayLike,
        q_prev: ArrayLike,
        max_step: float | ArrayLike,
        *,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        max_iterations: int = 12,
        max_attempts: int = 160,
        seed: Seed | str = Seed.REFERENCE,
        nearest: bool = False,
        joint_weights: ArrayLike | None = None,
        tool: ArrayLike = _NO_TOOL,
        slack: ArrayLike = _NO_SLACK,
        locked: Sequence[int] = (),
        q_preferred: ArrayLike | None = None,
        preference_gain: float = 0.1,
        world: World | None = None,
        self_collision: bool | None = None,
        margin: float = 0.0,
        options: Options | None = None,
    ) -> Result:
        """Follow a path: move from q_prev towards the pose, no joint further than `max_step` whatever the status.

        Where that bound binds, the whole step is shortened, so that the tool keeps its direction. At a pose, within
        reach or as near as the arm gets, the joints come to rest.

        Of the options, `seed`, `max_attempts`, `nearest` and `joint_weights` have no meaning here. The tolerances
        decide on the status; refinement goes on to 1e-9 m and rad, so that a slow path is not taken in stops and
        jumps. Motion towards `q_preferred`, or away from limits, begins where the pose is reached.

        Args:
            pose: T_base_tool, see `solve`, [7].
            q_prev: Joints now [rad or m], [J].
            max_step: Largest change of any joint [rad or m], or of each, [J].
            options: The other keywords as one object, instead of them; they are described at `Options`.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        given = (
            tol_pos, tol_rot, max_iterations, max_attempts, seed, nearest, joint_weights, tool, slack, locked,
            q_preferred, preference_gain, world, self_collision, margin,
        )  # fmt: skip
        asked = given if options is None else self._checked(options, given).native
        try:
            return _as_result(self._native.track(pose, q_prev, max_step, asked))
        except ValueError:
            pass  # as in solve
        pose, q_prev = as_poses("pose", pose, (7,)), as_joints("q_prev", q_prev, (self.dof,))
        max_step = as_steps("max_step", max_step, self.dof)
        checked = self._checked(options, given)
        checked.check_locked(self.robot, "q_prev", q_prev)
        return _as_result(_call(self._native.track, pose, q_prev, max_step, checked.native))

    def solve_all(
        self,
        pose: ArrayLike,
        n: int,
        q_ref: ArrayLike | None = None,
        *,
        min_distance: float = 0.1,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        max_iterations: int = 12,
        max_attempts: int = 160,
        seed: Seed | str = Seed.REFERENCE,
        nearest: bool = False,
        joint_weights: ArrayLike | None = None,
        tool: ArrayLike = _NO_TOOL,
        slack: ArrayLike = _NO_SLACK,
        locked: Sequence[int] = (),
        q_preferred: ArrayLike | None = None,
        preference_gain: float = 0.1,
        world: World | None = None,
        self_collision: bool | None = None,
        margin: float = 0.0,
        options: Options | None = None,
    ) -> Result:
        """Find up to n different solutions, spread over all that `max_attempts` seeds lead to.

        Args:
            pose: T_base_tool, see `solve`, [7].
            n: Number of solutions wanted.
            q_ref: Joints [rad or m], [J]: the nearest solution comes first, turns are chosen nearest to it, locked
                joints stay there. Default: the midpoint of the limits.
            min_distance: Two solutions differ when some joint differs by more than this [rad or m].
            options: The other keywords as one object, instead of them; they are described at `Options`.

        Returns:
            Solutions q [M, J], M <= n: after the first always the one farthest from those before it.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        given = (
            tol_pos, tol_rot, max_iterations, max_attempts, seed, nearest, joint_weights, tool, slack, locked,
            q_preferred, preference_gain, world, self_collision, margin,
        )  # fmt: skip
        pose = as_poses("pose", pose, (7,))
        n = as_integer("n", n, 1, 100_000)
        if q_ref is None:
            q_ref = 0.5 * (self.robot.lower + self.robot.upper)
        q_ref = as_joints("q_ref", q_ref, (self.dof,))
        min_distance = as_positive("min_distance", min_distance)
        checked = self._checked(options, given)
        checked.check_locked(self.robot, "q_ref", q_ref)
        return _as_result(_call(self._native.solve_all, pose, q_ref, n, min_distance, checked.native))

    def solve_batch(
        self,
        pose: ArrayLike,
        q_ref: ArrayLike,
        *,
        time_each: bool = True,
        threads: int = 1,
        throughput: bool = False,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        max_iterations: int = 12,
        max_attempts: int = 160,
        seed: Seed | str = Seed.REFERENCE,
        nearest: bool = False,
        joint_weights: ArrayLike | None = None,
        tool: ArrayLike = _NO_TOOL,
        slack: ArrayLike = _NO_SLACK,
        locked: Sequence[int] = (),
        q_preferred: ArrayLike | None = None,
        preference_gain: float = 0.1,
        world: World | None = None,
        self_collision: bool | None = None,
        margin: float = 0.0,
        options: Options | None = None,
    ) -> BatchResult | TensorResult:
        """Solve N poses, each exactly as `solve` would; other Python threads run meanwhile.

        With `throughput`, several times as many a second: many rows side by side instead of many attempts of one row.
        Each row takes one attempt after the other, the first of the seed "reference" from q_ref or from the stored
        configuration whose pose is nearest, whichever is nearer to the target. So a row may get another solution than
        `solve` finds: the same one at every call, whatever the rows beside it and the number of threads. `nearest`,
        `q_preferred`, `max_iterations=0` and collision go the ordinary way.

        CUDA tensors are solved on their device, where they stay: first seed (of the network in bfloat16), refinement
        in float32, check in float64 and status are one CUDA graph for each N, captured in the first call, and nothing
        waits for the device. The attempts after the first begin at configurations drawn once from within the limits, so
        the joints may be others than the CPU's. A pose or reference that is invalid is no error but status
        INVALID_INPUT. Of the options, CUDA takes tol_pos, tol_rot, max_iterations, max_attempts and seed.

        Args:
            pose: T_base_tool, see `solve`, [N, 7] or [N, 4, 4]; on CUDA [N, 7], float32 or float64.
            q_ref: Joints to start from [rad or m], [N, J]; on CUDA pose's dtype and device.
            time_each: Report the time of each solve, with `throughput` an equal share of the time of rows that were
                solved together; without meaning on CUDA.
            threads: Threads to use; the results do not depend on it. Without meaning on CUDA.
            throughput: See above; without meaning on CUDA.
            options: The other keywords as one object, instead of them; they are described at `Options`.

        Returns:
            Arrays; of CUDA tensors, tensors on their device.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        given = (
            tol_pos, tol_rot, max_iterations, max_attempts, seed, nearest, joint_weights, tool, slack, locked,
            q_preferred, preference_gain, world, self_collision, margin,
        )  # fmt: skip
        if is_tensor(pose) and pose.is_cuda:
            return self._solve_tensors(pose, q_ref, self._checked(options, given))
        pose = as_poses("pose", pose, (None, 7))
        q_ref = as_joints("q_ref", q_ref, (len(pose), self.dof))
        threads = as_integer("threads", threads, 1, 1024)
        checked = self._checked(options, given)
        checked.check_locked(self.robot, "q_ref", q_ref)
        asked = (checked.native, bool(time_each), threads, bool(throughput))
        return BatchResult(*_call(self._native.solve_batch, pose, q_ref, *asked))

    def solve_path(
        self,
        poses: ArrayLike,
        q_start: ArrayLike | None = None,
        *,
        max_step: float | ArrayLike,
        q_goal: ArrayLike | None = None,
        q_ref: ArrayLike | None = None,
        world: World | None = None,
        self_collision: bool | None = None,
        margin: float = 0.0,
        slack: ArrayLike = _NO_SLACK,
        tool: ArrayLike = _NO_TOOL,
        locked: Sequence[int] = (),
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        edge_check: float = 0.02,
        time_limit: float = 10.0,
        random_seed: int = 0,
        progress: Callable[[float], object] | None = None,
    ) -> PathResult:
        """Find joints for every pose of a path, without jumps: the shortest that is found.

        A path that cannot be done is no error: status and reason say where it breaks and why, and the longest prefix
        that works is handed out. The same input gives the same answer on a machine where `time_limit` does not bind.
        Other Python threads run meanwhile, and Ctrl-C ends the search.

        Args:
            poses: T_base_tool of each waypoint, see `solve`, [N, 7] or [N, 4, 4], N at least 1.
            q_start: Joints at the first waypoint [rad or m], which solve its pose, [J]; None: any solution.
            max_step: Largest change of each joint from one waypoint to the next [rad or m], a number or [J].
            q_goal: Joints at the last waypoint, likewise.
            q_ref: Joints [rad or m], [J]: locked joints stay there, and the turns of a solution that a path begins with
                are those nearest to it. None: q_start, else q_goal, else the midpoint of the limits.
            world, self_collision, margin, slack, tool, locked, tol_pos, tol_rot: Of every waypoint, see `Options`.
            edge_check: Largest change of any joint [rad or m] between two configurations that are checked for collision
                on the straight line of the joints from one waypoint to the next.
            time_limit: Longest time to search [s]; the answer then is the best until then.
            random_seed: Of the configurations from which solutions are looked for.
            progress: Called about every 100 ms with the share of the work that is done, 0 to 1. It returns True to end
                the search; what it raises does so, too, and is raised here.

        Raises:
            ArgumentError: An argument has the wrong shape or value, or q_start or q_goal do not solve their pose.
            RobotError: The robot has no spheres, and collision is asked for.
        """
        options = Options(
            tol_pos=tol_pos, tol_rot=tol_rot, tool=tool, slack=slack, locked=locked, world=world,
            self_collision=self_collision, margin=margin,
        )  # fmt: skip
        return solve_path(
            self._native,
            self.robot,
            poses,
            {"q_start": q_start, "q_goal": q_goal, "q_ref": q_ref},
            max_step,
            self._checked(options),
            edge_check=edge_check,
            time_limit=time_limit,
            random_seed=random_seed,
            progress=progress,
        )

    def clearance(self, q: ArrayLike, world: World | None = None, *, self_collision: bool = True) -> Clearance:
        """Tell how far the robot is from the world and from itself, by the spheres on its links.

        Args:
            q: Joints [rad or m], finite, [J].
            world: Shapes in the base frame. Links that no joint moves are not compared with them.
            self_collision: Compare the pairs of links that are checked (`robot.body.pairs`), too.

        Returns:
            Signed distance, names of the nearest two, and the distance's gradient.

        Raises:
            ArgumentError: An argument has the wrong type, shape or value.
            RobotError: The robot has no spheres.
        """
        shapes = native_world(self.robot, self._native.has_body, world)
        q = as_joints("q", q, (self.dof,))
        return Clearance(*_call(self._native.clearance, q, shapes, bool(self_collision)))

    def is_free(
        self, q: ArrayLike, world: World | None = None, *, margin: float = 0.0, self_collision: bool = True
    ) -> np.ndarray:
        """Tell which configurations keep a clearance: many in a call, each quicker than by `clearance`.

        Args:
            q: Joints [rad or m], finite, [N, J].
            world: As of `clearance`.
            margin: Clearance to keep [m], finite, as of `Options`.
            self_collision: As of `clearance`.

        Returns:
            Whether it is kept, [N] bool.

        Raises:
            ArgumentError: An argument has the wrong type, shape or value.
            RobotError: The robot has no spheres.
        """
        shapes = native_world(self.robot, self._native.has_body, world)
        q = as_joints("q", q, (None, self.dof))
        if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not math.isfinite(margin):
            raise ArgumentError(f"margin: expected a finite number [m], got {margin!r:.60}; 0 is contact")
        return _call(self._native.is_free, q, shapes, float(margin), bool(self_collision))

    def _solve_tensors(self, pose: Tensor, q_ref: Any, options: Options) -> TensorResult:
        """Do what `solve_batch` does with CUDA tensors, with tensors on any device."""
        from mfik.solve.cuda import OPTIONS, CudaSolver

        fields = Options.__dataclass_fields__.values()
        other = [x.name for x in fields if x.name not in OPTIONS and getattr(options, x.name) != x.default]
        if other:
            raise ArgumentError(f"{other[0]}: solving on CUDA takes {list(OPTIONS)} only; call pose.cpu() for it")
        if self._cuda is None:
            self._cuda = CudaSolver(self.robot, self._load_network, load_native().QUAT_NORM_TOLERANCE)
        return self._cuda.solve(pose, q_ref, options)

    def _load_network(self) -> nn.Module:
        from mfik.export import load_bundle  # with PyTorch and all that exports

        assert self._path is not None, "a solver without a file has no network"
        network, _, metadata = load_bundle(self._path)
        if metadata != self.metadata:
            raise BundleError(f"{self._path}: has changed since it was loaded; load the solver again")
        return network

    def explain(self, result: Result) -> str:
        """Return a result of `solve` or `track` in a sentence or two, with numbers and the joints at their limits.

        Raises:
            ArgumentError: `result` is another result, such as that of a batch.
        """
        if not isinstance(result, Result):
            raise ArgumentError(
                f"result: expected the Result of solve or track, got {type(result).__name__}; "
                "solve the row of interest by itself"
            )
        fields = (result.pos_error, result.rot_error, result.iterations, result.attempts, result.reason, result.pair)
        return self._native.explain(result.q, int(result.status), *fields)

    def _checked(self, options: Options | None, given: tuple[Any, ...] = _DEFAULTS) -> Options:
        """Return the options of a call: those given as an object, else those given as keywords, in their order."""
        if options is None:
            options = Options(*given)
        elif not isinstance(options, Options):
            raise ArgumentError(
                f"options: expected Options, got {type(options).__name__}; give keywords by their names"
            )
        elif not _are_defaults(given):
            raise ArgumentError(
                "options: expected no other option beside it, got some as keywords; "
                "use dataclasses.replace(options, ...) for another set"
            )
        options.check_for(self.dof)
        if options.asks_for_collision:
            check_body(self.robot, self._native.has_body)
        if options.seed is Seed.NETWORK and self.num_parameters == 0:
            raise ArgumentError("seed: expected another than 'network', because this solver was made without a network")
        return options


def _are_defaults(given: tuple[Any, ...]) -> bool:
    try:
        return given == _DEFAULTS
    except ValueError:  # an array is neither equal nor unequal
        return False


def _as_result(fields: tuple[Any, ...]) -> Result:
    q, status, *rest = fields
    return Result(q, _STATUSES[status], *rest)


def _call(call: Callable[..., Any], *args: Any) -> Any:
    """Call the C++ solver, whose refusals name the argument."""
    try:
        return call(*args)
    except ValueError as error:
        raise ArgumentError(str(error)) from error
