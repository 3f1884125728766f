"""Inverse kinematics as a differentiable layer of PyTorch programs."""

from mfik.torch.layer import ik

__all__ = ["ik"]
