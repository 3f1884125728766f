"""Inverse kinematics as a differentiable layer of PyTorch programs."""

from mfik import needs_torch  # noqa: F401
from mfik.torch.layer import ik

__all__ = ["ik"]
