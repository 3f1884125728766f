"""MeanFlow network, version 1: an MLP-ResNet with FiLM conditioning (docs/concepts.md)."""

from mfik.model.v1.config import ENCODINGS, PRESETS, ModelConfig
from mfik.model.v1.network import MeanFlowNet

__all__ = ["ENCODINGS", "PRESETS", "MeanFlowNet", "ModelConfig"]
