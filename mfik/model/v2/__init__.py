"""Network type v2: a residual MLP on the robot's geometry (docs/explanation/concepts.md)."""

from mfik.model.v2.config import PRESETS, ModelConfig
from mfik.model.v2.features import Geometry, Target, add_product
from mfik.model.v2.network import GATE2, NEAR2, MeanFlowNet, ResidualBlock, Starts, better

__all__ = [
    "GATE2",
    "NEAR2",
    "PRESETS",
    "Geometry",
    "MeanFlowNet",
    "ModelConfig",
    "ResidualBlock",
    "Starts",
    "Target",
    "add_product",
    "better",
]
