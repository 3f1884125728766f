"""Between a robot's NumPy arrays and tensors, without importing torch before a tensor is there or asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs


def is_tensor(value: Any) -> TypeIs[Tensor]:
    """Tell whether a value is a tensor. Where torch was never imported, nothing is."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def to_tensor(array: np.ndarray, like: Tensor | None = None) -> Tensor:
    """Copy a float64 array into a tensor: of `like`'s dtype and device, else float64 on the CPU."""
    import torch

    tensor = torch.from_numpy(array.copy())  # on the CPU, whatever the default device
    return tensor if like is None else tensor.to(like)


def keep(cache: dict[Any, Tensor], name: str, like: Tensor | None, make: Callable[[], Tensor]) -> Tensor:
    """Return what `make` makes, once for each name and each device and dtype of `like`; nobody may write to it."""
    import torch

    key = (name, None, None) if like is None else (name, like.device, like.dtype)
    if key in cache:
        return cache[key]
    with torch.inference_mode(False):  # what is made in it could never be differentiated through
        tensor = make()
    if type(tensor) is torch.Tensor:  # a tracer's stand-in serves its trace alone
        cache[key] = tensor
    return tensor
