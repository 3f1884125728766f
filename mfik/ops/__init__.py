"""Fused ops without derivatives: sampling, weighting, and the kinematics of labels and solutions.

Each runs a native kernel where there is one for the device, else the PyTorch reference of the same name in
`_reference.py`. Never call them inside a differentiated network: they are constants to autograd.
"""

from mfik.ops._reference import MIN_REMAINING, Batch
from mfik.ops.adaptive_weight import adaptive_weight
from mfik.ops.kinematics import fk, refine
from mfik.ops.sample_batch import sample_batch

__all__ = ["MIN_REMAINING", "Batch", "adaptive_weight", "fk", "refine", "sample_batch"]
