"""Network type v2: a residual MLP on the robot's geometry (docs/explanation/concepts.md)."""

from mfik.model.v2.config import PRESETS, ModelConfig
from mfik.model.v2.features import Geometry, Target
from mfik.model.v2.network import NEAR2, Judge, MeanFlowNet, ResidualBlock, Starts

__all__ = ["NEAR2", "PRESETS", "Geometry", "Judge", "MeanFlowNet", "ModelConfig", "ResidualBlock", "Starts", "Target"]
