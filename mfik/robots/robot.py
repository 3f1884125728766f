"""A serial robot: chain, joint names and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision.body import Body
from mfik.collision.pairs import NEVER_SAMPLES
from mfik.errors import ArgumentError, RobotError
from mfik.kinematics.chain import Chain, read_only
from mfik.kinematics.tensors import is_tensor, keep, to_tensor
from mfik.robots.attach import attached, detached, resampled
from mfik.robots.body import read_body
from mfik.robots.document import fingerprint, read_document, write_document
from mfik.robots.serial_chain import read_chain
from mfik.robots.source import Source, read_source
from mfik.robots.srdf import read_disabled
from mfik.robots.urdf import read_links

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mfik.kinematics import RefineResult


@dataclass(frozen=True, eq=False)
class Robot:
    """A serial robot from `base_link` to `tip_link`.

    Its numbers are NumPy arrays, and its methods answer arrays with arrays and tensors with tensors: PyTorch is
    imported by neither reading a robot nor computing with arrays.

    Args:
        name: Name for messages and files.
        base_link: Link whose frame poses are expressed in.
        tip_link: Link whose pose is solved for (the tool).
        chain: Kinematics of the J joints.
        joint_names: Unique joint names from base to tip, length J.
        lower: Lower limits [rad or m], -pi for continuous joints, [J], float64; kept as a read-only copy.
        upper: Upper limits [rad or m], pi for continuous joints, [J], float64; likewise.
        body: Spheres on the links, for collision; None where none are known.
        velocity: Velocity bounds [rad/s or m/s], infinite where none is known, [J]; likewise. None: all are infinite.
    Raises:
        RobotError: Names, limits or the body do not fit the chain.
    """

    name: str
    base_link: str
    tip_link: str
    chain: Chain
    joint_names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    body: Body | None = None
    velocity: np.ndarray = None  # type: ignore[assignment]  # an array after construction
    tensors: dict[Any, Tensor] = field(init=False, repr=False, default_factory=dict)  # what `keep` keeps

    def __post_init__(self) -> None:
        if len(self.joint_names) != self.dof or len(set(self.joint_names)) != self.dof:
            raise RobotError(f"joint_names: expected {self.dof} different names, got {self.joint_names}")
        if self.velocity is None:
            object.__setattr__(self, "velocity", np.full(self.dof, math.inf))
        for name in ("lower", "upper", "velocity"):
            limit = read_only(name, getattr(self, name), (self.dof,), "one per joint")
            object.__setattr__(self, name, limit)
        for name, kind, lower, upper in zip(
            self.joint_names, self.kinds, self.lower.tolist(), self.upper.tolist(), strict=True
        ):
            if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
                raise RobotError(f"joint '{name}': expected finite limits, lower < upper, got [{lower}, {upper}]")
            if kind == "continuous" and (lower, upper) != (-math.pi, math.pi):
                raise RobotError(f"joint '{name}': expected [-pi, pi] as it is continuous, got [{lower}, {upper}]")
        if self.body is not None:
            self.chain.check_no_mimics("body")
        for link in self.body.links if self.body is not None else ():
            if not 0 <= link.frame <= self.dof:
                raise RobotError(f"link '{link.name}': expected a frame from 0 to {self.dof}, got {link.frame}")
        if not (self.velocity > 0).all():
            joint = int((self.velocity > 0).argmin())
            raise RobotError(
                f"joint '{self.joint_names[joint]}': expected a velocity bound above 0, got {self.velocity[joint]}; "
                "give infinity where none is known"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle through the constructor, so that a copy's limits are read-only too."""
        return Robot, tuple(getattr(self, field.name) for field in fields(self) if field.init)

    @classmethod
    def from_urdf(
        cls,
        path: str | PathLike[str] | Source,
        base_link: str | None = None,
        tip_link: str | None = None,
        *,
        joint_positions: Mapping[str, float] | None = None,
        spheres: str | PathLike[str] | Mapping[str, ArrayLike] | None = None,
        srdf: str | PathLike[str] | None = None,
    ) -> Robot:
        """Read the serial chain between two links of a URDF file, and the body that moves with it.

        The base may also hang off the chain by fixed joints, as UR's `base` does.

        Args:
            path: A URDF file, or another that `load_robot` reads.
            base_link: First link; default the root link.
            tip_link: Last link; default the only leaf below base_link.
            joint_positions: Values [rad or m] of joints outside the chain, by name, at which the links that hang from
                it are held; others stand at 0, and a fixed joint's value has no effect.
            spheres: Spheres on the links, centre in the link's frame and radius [m], [S, 4] by link, or the path of a
                YAML file with them (scripts/fit_spheres.py); default the file's collision geometry, if it consists of
                spheres.
            srdf: SRDF file, or .xacro file of one, whose disabled pairs of links are not checked against each other;
                a chain with mimic joints has no body, and none are.
        Returns:
            The robot, named as in the file.
        Raises:
            ArgumentError: joint_positions, spheres or srdf name what does not exist, or cannot be read.
            ImportError: The package that reads this kind of file is not installed.
            RobotError: The file, or the chain in it, cannot be used; the message names file, element and remedy.
        """
        source = path if isinstance(path, Source) else read_source(path)
        description = read_chain(source, base_link or source.ends[0], tip_link or source.ends[1])
        chain = Chain(description.origins, description.kinds, description.mimics)
        lower, upper = description.limits.T
        ends = description.base_link, description.tip_link
        body = None
        if description.mimics:
            if joint_positions is not None or spheres is not None:
                chain.check_no_mimics("joint_positions and spheres")
            if srdf is not None:  # a mistake in it is one here, too
                read_disabled(source, srdf, read_links(source.path, source.root))
        else:
            body = read_body(source, chain, (lower, upper), ends, joint_positions, spheres, srdf)
        names = description.joint_names
        return cls(description.name, *ends, chain, names, lower, upper, body, description.velocity)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return self.chain.dof

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each joint: "revolute", "continuous" or "prismatic"."""
        return self.chain.joint_kinds

    def limits(self, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the limits as tensors.

        Args:
            like: Gives dtype and device; default float64 on the CPU. To float32 they are rounded to nearest; see
                `kinematics.limits_like` for limits that hold in float64 too.
        Returns:
            `lower` and `upper` [rad or m], [J] each; do not write to them.
        """
        lower = keep(self.tensors, "lower", like, lambda: to_tensor(self.lower, like))
        return lower, keep(self.tensors, "upper", like, lambda: to_tensor(self.upper, like))

    @overload
    def fk(self, q: Tensor) -> Tensor: ...
    @overload
    def fk(self, q: ArrayLike) -> np.ndarray: ...
    def fk(self, q: Any) -> Any:
        """Compute the tool pose in the base frame.

        Args:
            q: Joints [rad or m], [..., J]: a float32 or float64 tensor, through which the pose can be differentiated
                (`kinematics.fk`), or numbers in an array or list. NaN propagates.
        Returns:
            T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion with `qw >= 0`, [..., 7]: a tensor like q, or an
            array of float64, which the native kernels compute.
        Raises:
            ArgumentError: q has the wrong shape or dtype.
            ImportError: q is no tensor, and the native extension is missing.
        """
        if is_tensor(q):
            from mfik.kinematics import fk

            return fk(self.chain, q)
        return self.chain.native.fk(self._array(q))

    @overload
    def jacobian(self, q: Tensor) -> Tensor: ...
    @overload
    def jacobian(self, q: ArrayLike) -> np.ndarray: ...
    def jacobian(self, q: Any) -> Any:
        """Compute the geometric Jacobian in the base frame, reference point = tool origin.

        Args:
            q: Joints [rad or m], [..., J], as for `fk`.
        Returns:
            Jacobian, `[v, w] = J dq` in [m/s, rad/s], [..., 6, J]: a tensor or an array, as of `fk`.
        Raises:
            ArgumentError: q has the wrong shape or dtype.
            ImportError: q is no tensor, and the native extension is missing.
        """
        if is_tensor(q):
            from mfik.kinematics import jacobian

            return jacobian(self.chain, q)
        return self.chain.native.jacobian(self._array(q))

    @overload
    def sample(self, n: int, generator: np.random.Generator | None = None) -> np.ndarray: ...
    @overload
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor: ...
    def sample(self, n: int, generator: Any = None, dtype: Any = None, device: Any = None) -> Any:
        """Draw joints uniformly within limits.

        Drawn in float64: the same state of a torch generator gives the same joints in either dtype, up to rounding.

        Args:
            n: Number of rows.
            generator: Random state of NumPy (default a new one from the operating system) or of PyTorch (default, where
                a dtype or device is given, the device's global one).
            dtype: torch.float32 (default) or torch.float64, of a tensor.
            device: Where to draw a tensor; default the torch generator's device, else the CPU.
        Returns:
            Joints [rad or m], [n, J]: a float64 array, or a tensor where a torch generator, a dtype or a device is
            given.
        Raises:
            ArgumentError: A dtype or device goes with a generator of NumPy.
        """
        if isinstance(generator, np.random.Generator) and (dtype is not None or device is not None):
            raise ArgumentError(
                f"generator: expected one of PyTorch, as dtype or device is given, got {generator!r}; "
                "give a torch.Generator, or leave dtype and device out"
            )
        if (generator is None and dtype is None and device is None) or isinstance(generator, np.random.Generator):
            numbers = generator or np.random.default_rng()
            return self.clamp(self.lower + (self.upper - self.lower) * numbers.random((n, self.dof)))
        import torch

        device = device or (torch.device("cpu") if generator is None else generator.device)
        share = torch.rand(n, self.dof, generator=generator, dtype=torch.float64, device=device)
        lower, upper = self.limits(like=share)
        return self.clamp((lower + (upper - lower) * share).to(dtype or torch.float32))

    @overload
    def clamp(self, q: Tensor) -> Tensor: ...
    @overload
    def clamp(self, q: ArrayLike) -> np.ndarray: ...
    def clamp(self, q: Any) -> Any:
        """Move each joint to the nearest value within limits, which for float32 also holds after a cast to float64.

        Args:
            q: Joints [rad or m], [..., J], as for `fk`.
        Returns:
            Joints within limits, [..., J]: a tensor like q, or an array of float64.
        Raises:
            ArgumentError: q has the wrong shape or dtype.
        """
        if not is_tensor(q):
            return np.clip(self._array(q), self.lower, self.upper)
        import torch

        from mfik.kinematics.forward import check_q
        from mfik.kinematics.refinement import limits_like

        check_q(self.chain, q)
        # On q's device, once: a copy from the host has no place in a CUDA graph.
        limits = keep(self.tensors, "clamped", q, lambda: torch.stack(limits_like(q, *self.limits())))
        return torch.clamp(q, *limits.unbind())

    @overload
    def within_limits(self, q: Tensor, tol: float = 0.0) -> Tensor: ...
    @overload
    def within_limits(self, q: ArrayLike, tol: float = 0.0) -> np.ndarray: ...
    def within_limits(self, q: Any, tol: float = 0.0) -> Any:
        """Tell which rows have all joints within limits, compared in float64.

        Args:
            q: Joints [rad or m], [..., J], as for `fk`.
            tol: Distance outside the limits that is still accepted [rad or m].
        Returns:
            Truth per row, [...] bool, a tensor or an array as q is; False for NaN.
        Raises:
            ArgumentError: q has the wrong shape or dtype.
        """
        if is_tensor(q):
            from mfik.kinematics.forward import check_q

            check_q(self.chain, q)
            q = q.double()
            lower, upper = self.limits(like=q)
            return ((q >= lower - tol) & (q <= upper + tol)).all(-1)
        array = self._array(q)
        return ((array >= self.lower - tol) & (array <= self.upper + tol)).all(-1)

    def _array(self, q: ArrayLike) -> np.ndarray:
        """Return q as a float64 array [..., J]."""
        try:
            given = np.asarray(q)
            if np.iscomplexobj(given):
                raise TypeError("complex numbers are none")
            array = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"q: expected numbers [..., {self.dof}], got {type(q).__name__} ({error})") from error
        if array.shape[-1:] != (self.dof,):
            raise ArgumentError(
                f"q: expected [..., {self.dof}] (one value per joint), got {list(array.shape)}; put the joints last"
            )
        return array

    def refine(
        self,
        q: Tensor,
        target_pose: Tensor,
        *,
        max_iterations: int = 20,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
    ) -> RefineResult:
        """Move joints to a target pose within limits; see `kinematics.refine`.

        Args:
            q: Start [rad or m], [N, J].
            target_pose: Desired T_base_tool, q's dtype, [N, 7].
            max_iterations: Largest number of steps.
            tol_pos: Position tolerance [m].
            tol_rot: Rotation tolerance [rad].
        Returns:
            Joints, convergence flag and step count per row.
        """
        from mfik.kinematics import refine

        return refine(
            self.chain,
            *self.limits(),
            q,
            target_pose,
            max_iterations=max_iterations,
            tol_pos=tol_pos,
            tol_rot=tol_rot,
        )

    def attach(
        self,
        name: str,
        spheres: ArrayLike,
        *,
        link: str | None = None,
        pose: ArrayLike = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        touching: Sequence[str] = (),
    ) -> Robot:
        """Return the robot with an object on one of its links: a tool, a gripped box.

        It is checked against all links that move against it, but for those that it touches in nearly all
        configurations.

        Args:
            name: The object's name, for messages and `detach`; no link of the body may have it.
            spheres: Centre in the object's frame and radius of each [m], [S, 4];
                `mfik.collision.fitting.fit_spheres(mesh).spheres` contain a mesh.
            link: Link that holds it; default the tip.
            pose: T_link_object [x, y, z, qw, qx, qy, qz], [m].
            touching: Links that it may touch.
        Raises:
            ArgumentError: A name does not exist, or is taken; a number is not finite.
        """
        return replace(self, body=attached(self, name, spheres, link or self.tip_link, pose, touching))

    def detach(self, name: str) -> Robot:
        """Return the robot without an attached object, or without the spheres of a link.

        Raises:
            ArgumentError: The body has nothing of that name.
        """
        return replace(self, body=detached(self.body, name))

    def sample_pairs(self, samples: int = NEVER_SAMPLES) -> Robot:
        """Return the robot with its pairs of links decided anew by sampled configurations.

        Pairs that stay clear of each other by 0.05 m in all of at least 100,000 are "never" in contact: they are not
        checked, which saves time. Leave it out where a margin above that is asked of the solver.

        Args:
            samples: Number of configurations, uniform within the limits.
        Raises:
            ArgumentError: The robot has no spheres, or `samples` is out of range.
        """
        return replace(self, body=resampled(self, samples))

    def to_dict(self) -> dict[str, Any]:
        """Return the document that data files and exported models carry; exact through JSON."""
        return write_document(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Robot:
        """Rebuild the robot that `to_dict` described.

        Args:
            document: Result of `to_dict`, e.g. parsed from JSON.
        Returns:
            The robot.
        Raises:
            RobotError: A key is missing, or a value has the wrong type, size or range.
        """
        return read_document(document, cls)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of chain, limits and joint names; robots that differ in name only share it."""
        return fingerprint(self.to_dict())
