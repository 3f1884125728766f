"""Network type v1: an MLP-ResNet with FiLM conditioning (docs/explanation/concepts.md)."""

from mfik.model.v1.config import ENCODINGS, PRESETS, ModelConfig
from mfik.model.v1.network import MeanFlowNet

__all__ = ["ENCODINGS", "PRESETS", "MeanFlowNet", "ModelConfig"]
