"""A serial robot: chain, joint names and limits."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from mfik.errors import RobotError
from mfik.kinematics.forward import Chain, check_q, fk, jacobian
from mfik.kinematics.refinement import RefineResult, limits_like, refine

# Digits after the point (nanometres) that the fingerprint sees: another machine's libm may change the last bit.
FINGERPRINT_DECIMALS = 9


@dataclass(frozen=True, eq=False)
class Robot:
    """A serial robot from `base_link` to `tip_link`.

    Args:
        name: Name for messages and files.
        base_link: Link whose frame poses are expressed in.
        tip_link: Link whose pose is solved for (the tool).
        chain: Kinematics of the J joints.
        joint_names: Unique joint names from base to tip, length J.
        lower: Lower limits [rad or m], -pi for continuous joints, [J], float64.
        upper: Upper limits [rad or m], pi for continuous joints, [J], float64.
    Raises:
        RobotError: Names or limits do not fit the chain.
    """

    name: str
    base_link: str
    tip_link: str
    chain: Chain
    joint_names: tuple[str, ...]
    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if len(self.joint_names) != self.dof or len(set(self.joint_names)) != self.dof:
            raise RobotError(f"joint_names: expected {self.dof} different names, got {self.joint_names}")
        for name, limit in (("lower", self.lower), ("upper", self.upper)):
            if limit.shape != (self.dof,) or limit.dtype != torch.float64 or limit.device.type != "cpu":
                raise RobotError(
                    f"{name}: expected [{self.dof}] torch.float64 on cpu, "
                    f"got {list(limit.shape)} {limit.dtype} on {limit.device}"
                )
        for name, kind, lower, upper in zip(
            self.joint_names, self.kinds, self.lower.tolist(), self.upper.tolist(), strict=True
        ):
            if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
                raise RobotError(f"joint '{name}': expected finite limits, lower < upper, got [{lower}, {upper}]")
            if kind == "continuous" and (lower, upper) != (-math.pi, math.pi):
                raise RobotError(f"joint '{name}': expected [-pi, pi] as it is continuous, got [{lower}, {upper}]")

    @classmethod
    def from_urdf(cls, path: str | PathLike[str], base_link: str | None = None, tip_link: str | None = None) -> Robot:
        """Read the serial chain between two links of a URDF file.

        Args:
            path: URDF file.
            base_link: First link; default the root link.
            tip_link: Last link; default the only leaf below base_link.
        Returns:
            The robot.
        Raises:
            RobotError: The file, or the chain in it, cannot be used.
        """
        from mfik.robots.urdf import read_urdf  # urdf.py builds Robots, so it imports this module

        return read_urdf(path, base_link, tip_link)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return self.chain.dof

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each joint: "revolute", "continuous" or "prismatic"."""
        return self.chain.kinds

    def fk(self, q: Tensor) -> Tensor:
        """Compute the tool pose; see `kinematics.fk`.

        Args:
            q: Joints [rad or m], [..., J].
        Returns:
            T_base_tool [x, y, z, qw, qx, qy, qz], [m], [..., 7].
        """
        return fk(self.chain, q)

    def jacobian(self, q: Tensor) -> Tensor:
        """Compute the geometric Jacobian; see `kinematics.jacobian`.

        Args:
            q: Joints [rad or m], [..., J].
        Returns:
            Jacobian of [v, w] in the base frame, [..., 6, J].
        """
        return jacobian(self.chain, q)

    def sample(self, n: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw joints uniformly within limits.

        Drawn in float64: the same generator state gives the same joints in either dtype, up to rounding.

        Args:
            n: Number of rows.
            generator: Random state, whose device is used; default the global one of the CPU.
            dtype: torch.float32 or torch.float64.
        Returns:
            Joints [rad or m], [n, J].
        """
        device = torch.device("cpu") if generator is None else generator.device
        share = torch.rand(n, self.dof, generator=generator, dtype=torch.float64, device=device)
        lower, upper = self.lower.to(device), self.upper.to(device)
        return self.clamp((lower + (upper - lower) * share).to(dtype))

    def clamp(self, q: Tensor) -> Tensor:
        """Move each joint to the nearest value within limits, which also holds after a cast to float64.

        Args:
            q: Joints [rad or m], [..., J].
        Returns:
            Joints within limits, [..., J].
        """
        check_q(self.chain, q)
        return torch.clamp(q, *limits_like(q, self.lower, self.upper))

    def within_limits(self, q: Tensor, tol: float = 0.0) -> Tensor:
        """Tell which rows have all joints within limits, compared in float64.

        Args:
            q: Joints [rad or m], [..., J].
            tol: Distance outside the limits that is still accepted [rad or m].
        Returns:
            Truth per row, [...] bool; False for NaN.
        """
        check_q(self.chain, q)
        q = q.double()
        return ((q >= self.lower.to(q.device) - tol) & (q <= self.upper.to(q.device) + tol)).all(-1)

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
        return refine(
            self.chain,
            self.lower,
            self.upper,
            q,
            target_pose,
            max_iterations=max_iterations,
            tol_pos=tol_pos,
            tol_rot=tol_rot,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the document that data files and exported models carry; exact through JSON."""
        origins = self.chain.origins.flatten(1).tolist()
        joints = zip(self.joint_names, self.kinds, self.lower.tolist(), self.upper.tolist(), origins[:-1], strict=True)
        return {
            "name": self.name,
            "base_link": self.base_link,
            "tip_link": self.tip_link,
            "joints": [
                {"name": name, "kind": kind, "lower": lower, "upper": upper, "origin": origin}
                for name, kind, lower, upper, origin in joints
            ],
            "tool": origins[-1],
        }

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
        try:
            joints = list(document["joints"])
            rows = [*(joint["origin"] for joint in joints), document["tool"]]
            if any(len(row) != 12 for row in rows):
                raise RobotError(f"robot document: expected 12 numbers per transform, got {[len(row) for row in rows]}")
            names = [
                document["name"],
                document["base_link"],
                document["tip_link"],
                *(joint["name"] for joint in joints),
            ]
            numbers = [x for row in rows for x in row] + [joint[key] for joint in joints for key in ("lower", "upper")]
            # Neither True nor "1" is a number, though torch.tensor and float take them for one.
            for value, types in [(name, (str,)) for name in names] + [(x, (int, float)) for x in numbers]:
                if type(value) not in types:
                    raise RobotError(
                        f"robot document: expected the types of Robot.to_dict, got {value!r:.60} for "
                        f"{' or '.join(kind.__name__ for kind in types)}; write it anew"
                    )
            return cls(
                name=document["name"],
                base_link=document["base_link"],
                tip_link=document["tip_link"],
                chain=Chain(
                    origins=torch.tensor(rows, dtype=torch.float64).reshape(-1, 3, 4),
                    kinds=tuple(joint["kind"] for joint in joints),
                ),
                joint_names=tuple(joint["name"] for joint in joints),
                lower=torch.tensor([joint["lower"] for joint in joints], dtype=torch.float64),
                upper=torch.tensor([joint["upper"] for joint in joints], dtype=torch.float64),
            )
        except KeyError as error:
            raise RobotError(f"robot document: expected key {error}, found none; write it with Robot.to_dict") from None
        except (TypeError, RuntimeError) as error:
            raise RobotError(
                f"robot document: expected the types of Robot.to_dict, got {error}; write it anew"
            ) from None

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of chain, limits and joint names; robots that differ in name only share it."""
        document = self.to_dict()

        def rounded(values: list[float]) -> list[float]:
            return [round(value, FINGERPRINT_DECIMALS) + 0.0 for value in values]  # + 0.0 turns -0.0 into 0.0

        content = {
            "joints": [
                [joint["name"], joint["kind"], rounded([joint["lower"], joint["upper"], *joint["origin"]])]
                for joint in document["joints"]
            ],
            "tool": rounded(document["tool"]),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
