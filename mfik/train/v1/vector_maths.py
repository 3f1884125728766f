"""What keeps a run on the CPU repeatable."""

from __future__ import annotations

import torch
from torch import nn

_VECTOR_MATHS = (
    torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.sqrt, torch.rsqrt,
    torch.exp, torch.expm1, torch.log, torch.log1p, torch.tanh, torch.erf, torch.sigmoid, nn.functional.silu,
)  # fmt: skip


def call_vector_maths_once() -> None:
    """Call each function of vector maths that training uses with one element, and so on one thread.

    On the CPU, libtorch may compute with low accuracy in the first call of a function of MKL's vector maths if several
    threads make it together (pytorch issue 188792, open). A run whose first call it is would not repeat itself.
    """
    for dtype in (torch.float32, torch.float64):
        one = torch.ones(1, dtype=dtype)
        for function in _VECTOR_MATHS:
            function(one)
        torch.atan2(one, one)
        torch.pow(one, 1.5)
