"""What training, export, evaluation and loading ask of every network, whatever its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.kinematics.chain import MAX_JOINTS

if TYPE_CHECKING:
    from typing_extensions import Self

# Largest sizes that a file may claim, so that a damaged one costs no memory; the same in
# csrc/solver/networks/layers.hpp.
MAX_WIDTH = 1 << 14
MAX_BLOCKS = 256


@dataclass
class NetworkConfig:
    """Size of a network: the document that checkpoints and bundles carry of it, checked as every reader checks it.

    A subclass, a dataclass too, adds its fields and sets the three class attributes.

    Attributes:
        TYPE: Name of the network type, "type" in the document.
        SIZES: For each named size the fields that differ from their defaults.
        LIMITS: Largest value of each of its fields that is a positive whole number.
        dof: Number of joints J.
    """

    TYPE: ClassVar[str]
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]]
    LIMITS: ClassVar[Mapping[str, int]]

    dof: int = 7

    def __post_init__(self) -> None:
        self._check_integer("dof", 1, MAX_JOINTS)
        for name, largest in self.LIMITS.items():
            self._check_integer(name, 1, largest)

    def _check_integer(self, name: str, least: int, largest: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or not least <= value <= largest:  # True is no size
            raise ArgumentError(f"model.{name}: expected an integer from {least} to {largest}, got {value!r:.60}")

    @classmethod
    def preset(cls, dof: int, size: str = "default") -> Self:
        """Return the configuration of a named size for J = `dof`.

        Raises:
            ArgumentError: There is no such size.
        """
        if size not in cls.SIZES:
            raise ArgumentError(f"size: expected one of {tuple(cls.SIZES)}, got {size!r}")
        return cls(dof=dof, **cls.SIZES[size])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document that travels in checkpoints and bundles."""
        return {"type": self.TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Read `to_dict`'s document.

        Raises:
            ArgumentError: The document is of another network type, lacks fields, or has unknown fields or values.
        """
        document = dict(document)
        kind = document.pop("type", None)
        if kind != cls.TYPE:
            raise ArgumentError(f"model.type: expected {cls.TYPE!r}, got {kind!r:.60}; use mfik.model.read_config")
        unknown = sorted(set(document) - {field.name for field in fields(cls)})
        if unknown:
            raise ArgumentError(f"model: expected {[f.name for f in fields(cls)]}, got also {unknown}; update mfik")
        missing = [field.name for field in fields(cls) if field.name not in document]
        if missing:
            raise ArgumentError(f"model: expected also {missing}, which an earlier mfik did not write; train anew")
        return cls(**document)


class Network(nn.Module):
    """Mean velocity u(q, r, t | target_pose) over [r, t] of the flow that is at q at time r.

    `forward` has to be differentiable by `torch.func.jvp`, to trace at any batch size, and to return zero (or a step
    that needs no training) at first. A network may have `forward_with_tangent(q, target_pose, r, t, v)` besides, which
    returns u, and D = du/dr + v . grad_q u of the first len(v) rows, in one pass: training then needs no JVP.

    Attributes:
        config: Its type and size.
    """

    config: NetworkConfig

    def forward(self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Evaluate the mean velocity.

        Args:
            q: Joints at time r, [rad] or [m], [N, J].
            target_pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [N, 7].
            r: Start time in [0, 1], [N, 1].
            t: End time in [r, 1], [N, 1].

        Returns:
            u, [rad] or [m] per unit time, [N, J].
        """
        raise NotImplementedError

    def without_restarts(self) -> Network:
        """Return a network of the same parameters, not copies, that goes from q to its answer without beginning anew
        elsewhere: this one, where it never does."""
        return self

    def num_parameters(self) -> int:
        """Return the number of trained scalars."""
        return sum(p.numel() for p in self.parameters())


class SingleStep(nn.Module):
    """What is exported: (q_ref, target_pose) -> q_solution = q_ref + u(q_ref, 0, 1)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor:
        """Map q_ref [N, J] and target_pose [N, 7] to q_solution [N, J]."""
        r = torch.zeros_like(q_ref[:, :1])
        return q_ref + self.model(q_ref, target_pose, r, torch.ones_like(r))
