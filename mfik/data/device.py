"""Which device a computation runs on."""

from __future__ import annotations

import torch

from mfik.errors import ArgumentError


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is CUDA where available, else the CPU.

    Raises:
        ArgumentError: there is no such device, or none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ArgumentError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ArgumentError(
                f"device: expected one that torch finds, got {str(name)!r} with {count} CUDA devices; take 'cpu', or "
                "install a torch built for CUDA and its driver"
            )
    return device
