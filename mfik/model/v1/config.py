"""Configuration of a network of type v1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mfik.errors import ArgumentError
from mfik.model.interface import MAX_BLOCKS, MAX_WIDTH, NetworkConfig

ENCODINGS = ("sinusoidal", "fourier", "none")


@dataclass
class ModelConfig(NetworkConfig):
    """Size and input encoding of a `MeanFlowNet` of type v1.

    Named sizes: "default" 17.9M parameters, "small" 1M, "tiny" 0.1M.

    Attributes:
        dof: Number of joints J.
        width: Width of the residual blocks.
        num_blocks: Number of residual blocks.
        cond_dim: Width of the FiLM condition computed from pose and times.
        encoding: How each of the J + 7 + 2 input scalars is encoded: "sinusoidal" (geometric frequencies from
            `encoding_scale` down to `encoding_scale / 10000`), "fourier" (frequencies drawn from
            `N(0, encoding_scale^2)`) or "none" (the scalar itself).
        encoding_dim: Features per scalar, half sines and half cosines; unused with "none".
        encoding_scale: Highest angular frequency, or spread of the random ones, [rad per unit of the scalar].
        dropout: Dropout probability inside the residual blocks.
    """

    TYPE: ClassVar = "v1"
    SIZES: ClassVar = {
        "default": {},
        "small": {"width": 256, "num_blocks": 5, "cond_dim": 128, "encoding_dim": 16},
        "tiny": {"width": 128, "num_blocks": 2, "cond_dim": 64, "encoding": "none"},
    }
    LIMITS: ClassVar = {"width": MAX_WIDTH, "num_blocks": MAX_BLOCKS, "cond_dim": MAX_WIDTH}

    width: int = 1024
    num_blocks: int = 6
    cond_dim: int = 256
    encoding: str = "sinusoidal"
    encoding_dim: int = 128
    encoding_scale: float = 10.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoding not in ENCODINGS:
            raise ArgumentError(f"model.encoding: expected one of {ENCODINGS}, got {self.encoding!r:.60}")
        if self.encoding != "none":
            self._check_integer("encoding_dim", 4, MAX_WIDTH)
            if self.encoding_dim % 2:
                raise ArgumentError(f"model.encoding_dim: expected an even number, got {self.encoding_dim}")
        if not self.encoding_scale > 0:
            raise ArgumentError(f"model.encoding_scale: expected a positive number, got {self.encoding_scale!r}")
        if not 0 <= self.dropout < 1:
            raise ArgumentError(f"model.dropout: expected a probability in [0, 1), got {self.dropout!r}")

    @classmethod
    def panda_default(cls) -> ModelConfig:
        """17.9M parameters, 7 joints."""
        return cls.preset(7)

    @classmethod
    def panda_small(cls) -> ModelConfig:
        """About 1M parameters, 7 joints."""
        return cls.preset(7, "small")

    @classmethod
    def panda_tiny(cls) -> ModelConfig:
        """About 0.1M parameters, 7 joints."""
        return cls.preset(7, "tiny")

    @classmethod
    def ur10_default(cls) -> ModelConfig:
        """17.9M parameters, 6 joints."""
        return cls.preset(6)

    @classmethod
    def ur10_tiny(cls) -> ModelConfig:
        """About 0.1M parameters, 6 joints."""
        return cls.preset(6, "tiny")


PRESETS = tuple(ModelConfig.SIZES)  # names of the sizes
