"""Op `adaptive_weight`."""

from __future__ import annotations

import torch
from torch import Tensor

from mfik.ops import _reference
from mfik.ops._backend import LIBRARY, has_kernel, launch
from mfik.ops._checks import check_like, check_rows, check_weight


def adaptive_weight(q: Tensor, q_target: Tensor, c: float = 1e-4, p: float = 0.5) -> Tensor:
    """Weigh rows by their distance: `w = 1 / (||q_target - q||^2 + c)^p`.

    A constant to every derivative: arguments are detached, as the training loss wants.

    Args:
        q: Joints [rad or m], [N, J], float32 or float64.
        q_target: Solution joints [rad or m], [N, J].
        c: Bounds the weight by c^-p, > 0.
        p: Power, >= 0.
    Returns:
        Weight, [N, 1]; never requires grad.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value.
    """
    check_rows("q", q)
    check_like("q_target", q_target, q.shape, "q", q)
    check_weight(c, p, q.dtype)
    q, q_target = q.detach(), q_target.detach()
    if not has_kernel("adaptive_weight", q.device):
        return _reference.adaptive_weight(q, q_target, c, p)
    return torch.ops.mfik.adaptive_weight(q, q_target, c, p)


def _kernel(q: Tensor, q_target: Tensor, c: float, p: float) -> Tensor:
    q, q_target = q.contiguous(), q_target.contiguous()
    weight = _fake(q, q_target, c, p)
    launch("adaptive_weight", q, q.data_ptr(), q_target.data_ptr(), weight.data_ptr(), *q.shape, c, p)
    return weight


def _fake(q: Tensor, q_target: Tensor, c: float, p: float) -> Tensor:
    return q.new_empty(q.shape[0], 1)


LIBRARY.define("adaptive_weight(Tensor q, Tensor q_target, float c, float p) -> Tensor")
LIBRARY.impl("adaptive_weight", _kernel, "CPU")
LIBRARY.impl("adaptive_weight", _kernel, "CUDA")
torch.library.register_fake("mfik::adaptive_weight", _fake, lib=LIBRARY)
