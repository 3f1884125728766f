"""Network type v2: a residual MLP on the robot's geometry (docs/explanation/concepts.md)."""

from mfik.model.v2.config import PRESETS, ModelConfig
from mfik.model.v2.features import Geometry
from mfik.model.v2.network import MeanFlowNet

__all__ = ["PRESETS", "Geometry", "MeanFlowNet", "ModelConfig"]
