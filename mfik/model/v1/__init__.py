"""Network type v1: an MLP-ResNet with FiLM conditioning (docs/concepts.md)."""

from mfik.model.v1.config import ENCODINGS, ModelConfig
from mfik.model.v1.network import MeanFlowNet

__all__ = ["ENCODINGS", "MeanFlowNet", "ModelConfig"]
