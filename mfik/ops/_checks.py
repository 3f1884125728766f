"""Argument checks shared by the ops."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mfik.errors import ArgumentError


def check_rows(name: str, value: Tensor, columns: int | None = None) -> None:
    """Raise ArgumentError unless value is a float32 or float64 matrix [N, columns]."""
    width = "J" if columns is None else columns
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{name}: expected a tensor [N, {width}], got {type(value).__name__}; use torch.as_tensor")
    if value.ndim != 2 or value.shape[1] == 0 or (columns is not None and value.shape[1] != columns):
        raise ArgumentError(f"{name}: expected [N, {width}], got {list(value.shape)}; give one row per sample")
    if value.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(
            f"{name}: expected torch.float32 or torch.float64, got {value.dtype}; convert with {name}.float()"
        )


def check_like(name: str, value: Tensor, shape: tuple[int, ...], other_name: str, other: Tensor) -> None:
    """Raise ArgumentError unless value has this shape and the dtype and device of another argument."""
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{name}: expected a tensor {list(shape)}, got {type(value).__name__}; use torch.as_tensor")
    if value.shape != shape:
        raise ArgumentError(
            f"{name}: expected {list(shape)} to go with {other_name} {list(other.shape)}, got {list(value.shape)}; "
            "give one row per sample"
        )
    if value.dtype != other.dtype or value.device != other.device:
        raise ArgumentError(
            f"{name}: expected {other.dtype} on {other.device} like {other_name}, got {value.dtype} on {value.device}; "
            f"convert with {name}.to({other_name})"
        )


def check_no_grad(op: str, remedy: str, **values: Tensor) -> None:
    """Raise ArgumentError when a derivative of values would be taken: it would be zero without a word."""
    for name, value in values.items():
        if torch.is_grad_enabled() and value.requires_grad:
            raise ArgumentError(f"{name}: expected no gradient, as {op} has none, got requires_grad=True; {remedy}")
    check_no_tangent(op, remedy, **values)


def check_no_tangent(op: str, remedy: str, **values: Tensor) -> None:
    """Raise ArgumentError when values carry a forward-mode tangent, which would be lost without a word."""
    if torch.compiler.is_compiling():  # a traced program holds no dual tensors
        return
    for name, value in values.items():
        if forward_ad.unpack_dual(value).tangent is not None:
            raise ArgumentError(f"{name}: expected no tangent, as {op} has none, got a dual tensor; {remedy}")


def check_integer(name: str, value: int, low: int, high: int, remedy: str) -> None:
    """Raise ArgumentError unless low <= value <= high."""
    if isinstance(value, float) or not low <= value <= high:
        raise ArgumentError(f"{name}: expected an integer in [{low}, {high}], got {value}; {remedy}")


def check_weight(c: float, p: float, dtype: torch.dtype) -> None:
    """Raise ArgumentError unless c and p give a finite, positive weight at distance 0."""
    if not torch.finfo(dtype).tiny <= c < math.inf:
        raise ArgumentError(f"c: expected a finite positive number, got {c}; the default is 1e-4")
    if not 0 <= p < math.inf:
        raise ArgumentError(f"p: expected a finite number >= 0, got {p}; the default is 0.5, and 0 weights all alike")
