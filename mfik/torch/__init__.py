"""Inverse kinematics as a differentiable layer of PyTorch programs."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("mfik.torch needs PyTorch: pip install 'mfik[train]'")

from mfik.torch.layer import ik

__all__ = ["ik"]
