"""Configuration of a network of type v2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mfik.model.interface import MAX_BLOCKS, MAX_WIDTH, NetworkConfig

MAX_PASSES, MAX_STARTS = 64, 16  # that a file may ask for; the same in csrc/solver/networks/v2.cpp


@dataclass
class ModelConfig(NetworkConfig):
    """Size of a `MeanFlowNet` of type v2.

    Named sizes and their parameters with seven joints: "default" 17.8M, "medium" 4.1M, "small" 1.05M, "mini" 0.24M,
    "tiny" 0.11M, "nano" 0.03M.

    Attributes:
        dof: Number of joints J.
        width: Width of the residual blocks.
        num_blocks: Number of residual blocks.
        passes: Looks at the geometry, all with the same weights, after which what has not settled begins elsewhere.
        training_passes: Looks while the network trains, from one start. Few learn to get far with each look, and more
            of these in an evaluation get further than as many in training would (docs/measurements/training.md).
        starts: Places that an evaluation begins at, one after the other.
    """

    TYPE: ClassVar = "v2"
    SIZES: ClassVar = {
        "default": {},
        "medium": {"width": 640, "num_blocks": 5},
        "small": {"width": 320, "num_blocks": 5},
        "mini": {"width": 192, "num_blocks": 3},
        "tiny": {"width": 128, "num_blocks": 3},
        "nano": {"width": 64, "num_blocks": 3},
    }
    LIMITS: ClassVar = {
        "width": MAX_WIDTH, "num_blocks": MAX_BLOCKS, "passes": MAX_PASSES,
        "training_passes": MAX_PASSES, "starts": MAX_STARTS,
    }  # fmt: skip

    width: int = 1216
    num_blocks: int = 6
    passes: int = 12
    training_passes: int = 4
    starts: int = 6


PRESETS = tuple(ModelConfig.SIZES)  # names of the sizes
