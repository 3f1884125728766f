"""The native kernels, where they exist, and the torch library that the ops are registered in."""

from __future__ import annotations

import functools
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

try:
    from mfik import _native
except ModuleNotFoundError:  # not built; one that is built but cannot be loaded is an error
    _native = None
native: ModuleType | None = _native

LIBRARY = torch.library.Library("mfik", "DEF")


def has_kernel(name: str, device: torch.device) -> bool:
    """Tell whether an op runs native code on a device; the wrappers call the reference where it does not."""
    return hasattr(native, f"{name}_{device.type}") and (device.type != "cuda" or _cuda_runs_on(device))


@functools.cache
def _cuda_runs_on(device: torch.device) -> bool:
    """Tell whether CUDA runs the kernels on a device; where it does not, say why, once."""
    assert native is not None
    with torch.cuda.device(device):
        problem = native.cuda_problem()
    if problem:
        warnings.warn(
            f"mfik's CUDA kernels do not run on {device}: {problem}. PyTorch's operators take their place, slower; "
            "update the NVIDIA driver, or build mfik with a CUDA toolkit no newer than it and a GPU of compute "
            "capability 8.0 or newer",
            RuntimeWarning,
            stacklevel=4,
        )
    return not problem


def launch(name: str, like: Tensor, *args: Any) -> Any:
    """Run a kernel on the device (current stream) and for the dtype of a tensor.

    Args:
        name: Op name.
        like: Tensor whose dtype and device are those of every array in args.
        args: Addresses of contiguous arrays, sizes and scalars.
    Returns:
        What the binding returns.
    """
    kernel = getattr(native, f"{name}_{like.device.type}")
    is_double = like.dtype == torch.float64
    if like.device.type == "cpu":
        return kernel(is_double, *args, torch.get_num_threads())
    with torch.cuda.device(like.device):
        return kernel(is_double, *args, torch.cuda.current_stream().cuda_stream)
