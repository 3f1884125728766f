"""Configuration of the version 2 network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from mfik.errors import ArgumentError

_SIZES = {  # width, num_blocks
    "default": (1216, 6),
    "medium": (640, 5),
    "small": (320, 5),
    "mini": (192, 3),
    "tiny": (128, 3),
    "nano": (64, 3),
}
PRESETS = tuple(_SIZES)


@dataclass
class ModelConfig:
    """Size of a `MeanFlowNet` of version 2.

    Attributes:
        dof: Number of joints J.
        width: Width of the residual blocks.
        num_blocks: Number of residual blocks.
    """

    dof: int = 7
    width: int = 1216
    num_blocks: int = 6

    def __post_init__(self) -> None:
        for name in ("dof", "width", "num_blocks"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f"ModelConfig.{name}: expected a positive integer, got {value!r}")

    @classmethod
    def preset(cls, dof: int, size: str = "default") -> ModelConfig:
        """Return the configuration of a size for J = `dof`.

        Parameters of seven joints: default 17.8M, medium 4.1M, small 1.05M, mini 0.24M, tiny 0.11M, nano 0.03M.
        """
        if size not in _SIZES:
            raise ArgumentError(f"size: expected one of {PRESETS}, got {size!r}")
        width, num_blocks = _SIZES[size]
        return cls(dof=dof, width=width, num_blocks=num_blocks)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document that travels in checkpoints and bundles."""
        return {"type": "v2", **asdict(self)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ModelConfig:
        """Read `to_dict`'s document.

        Raises:
            ArgumentError: the document is of another network type or has unknown fields.
        """
        document = dict(document)
        kind = document.pop("type", None)
        if kind != "v2":
            raise ArgumentError(f"model type: expected 'v2', got {kind!r}")
        unknown = sorted(set(document) - {f.name for f in fields(cls)})
        if unknown:
            raise ArgumentError(f"model configuration: unknown fields {unknown}; update mfik")
        return cls(**document)
