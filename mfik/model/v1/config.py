"""Configuration of the version 1 network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from mfik.errors import ArgumentError

ENCODINGS = ("sinusoidal", "fourier", "none")
PRESETS = ("default", "small", "tiny")
_SIZES: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {"width": 256, "num_blocks": 5, "cond_dim": 128, "encoding_dim": 16},
    "tiny": {"width": 128, "num_blocks": 2, "cond_dim": 64, "encoding": "none"},
}
_DOF = {"panda": 7, "ur10": 6}


@dataclass
class ModelConfig:
    """Size and input encoding of a `MeanFlowNet`.

    Attributes:
        dof: Number of joints J.
        width: Width of the residual blocks.
        num_blocks: Number of residual blocks.
        cond_dim: Width of the FiLM condition computed from pose and times.
        encoding: How each of the J + 7 + 2 input scalars is encoded: "sinusoidal" (geometric frequencies from
            `encoding_scale` down to `encoding_scale`/10000), "fourier" (frequencies drawn from
            N(0, `encoding_scale`^2)) or "none" (the scalar itself).
        encoding_dim: Features per scalar, half sines and half cosines; unused with "none".
        encoding_scale: Highest angular frequency, or spread of the random ones, [rad per unit of the scalar].
        dropout: Dropout probability inside the residual blocks.
    """

    dof: int = 7
    width: int = 1024
    num_blocks: int = 6
    cond_dim: int = 256
    encoding: str = "sinusoidal"
    encoding_dim: int = 128
    encoding_scale: float = 10.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dof", "width", "num_blocks", "cond_dim"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f"ModelConfig.{name}: expected a positive integer, got {value!r}")
        if self.encoding not in ENCODINGS:
            raise ArgumentError(f"ModelConfig.encoding: expected one of {ENCODINGS}, got {self.encoding!r}")
        if self.encoding != "none" and (self.encoding_dim < 4 or self.encoding_dim % 2):
            raise ArgumentError(
                f"ModelConfig.encoding_dim: expected an even number of at least 4, got {self.encoding_dim!r}"
            )
        if not self.encoding_scale > 0:
            raise ArgumentError(f"ModelConfig.encoding_scale: expected a positive number, got {self.encoding_scale!r}")
        if not 0 <= self.dropout < 1:
            raise ArgumentError(f"ModelConfig.dropout: expected a probability in [0, 1), got {self.dropout!r}")

    @classmethod
    def preset(cls, dof: int, size: str = "default") -> ModelConfig:
        """Return the configuration of a size ("default" 17.9M parameters, "small" 1M, "tiny" 0.1M) for J = `dof`."""
        if size not in _SIZES:
            raise ArgumentError(f"size: expected one of {PRESETS}, got {size!r}")
        return cls(dof=dof, **_SIZES[size])

    @classmethod
    def panda_default(cls) -> ModelConfig:
        """17.9M parameters, 7 joints."""
        return cls.preset(_DOF["panda"])

    @classmethod
    def panda_small(cls) -> ModelConfig:
        """About 1M parameters, 7 joints."""
        return cls.preset(_DOF["panda"], "small")

    @classmethod
    def panda_tiny(cls) -> ModelConfig:
        """About 0.1M parameters, 7 joints."""
        return cls.preset(_DOF["panda"], "tiny")

    @classmethod
    def ur10_default(cls) -> ModelConfig:
        """17.9M parameters, 6 joints."""
        return cls.preset(_DOF["ur10"])

    @classmethod
    def ur10_small(cls) -> ModelConfig:
        """About 1M parameters, 6 joints."""
        return cls.preset(_DOF["ur10"], "small")

    @classmethod
    def ur10_tiny(cls) -> ModelConfig:
        """About 0.1M parameters, 6 joints."""
        return cls.preset(_DOF["ur10"], "tiny")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document that travels in checkpoints and bundles."""
        return {"type": "v1", **asdict(self)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ModelConfig:
        """Read `to_dict`'s document.

        Raises:
            ArgumentError: the document is of another network type or has unknown fields.
        """
        document = dict(document)
        kind = document.pop("type", None)
        if kind != "v1":
            raise ArgumentError(f"model type: expected 'v1', got {kind!r}; this mfik reads v1 networks only")
        unknown = sorted(set(document) - {f.name for f in fields(cls)})
        if unknown:
            raise ArgumentError(f"model configuration: unknown fields {unknown}; update mfik")
        return cls(**document)
