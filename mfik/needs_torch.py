"""What needs PyTorch imports this first: without it, solving works, and the error names what to install."""

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError("this needs PyTorch: pip install 'mfik[train]'") from error

__all__ = ["torch"]
