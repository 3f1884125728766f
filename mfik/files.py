"""A bundle's files and the JSON document that each of them carries, for who writes bundles and who only solves."""

from __future__ import annotations

from typing import Any

NATIVE_FILE = "model.safetensors"  # also in csrc/solver/bundle.cpp
TORCHSCRIPT_FILE = "model.ts"
ONNX_FILE = "model.onnx"
CHECKSUMS_FILE = "SHA256SUMS"
CARD_FILE = "README.md"
BUNDLE_FORMAT = 2  # "version" of the JSON document; format 1 had no checksum


def document(
    model: Any,
    robot: Any,
    *,
    training: dict[str, Any] | None = None,
    accuracy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON document of a bundle.

    Args:
        model: The network, whose `config.to_dict()` describes it; None: a robot alone, for a solver without a network.
        robot: The `mfik.robots.Robot`: its chain and limits.
        training: Where the network comes from.
        accuracy: What was measured of it.
    """
    return {
        "format": "mfik-bundle",
        "version": BUNDLE_FORMAT,
        "robot": robot.to_dict(),
        "model": None if model is None else model.config.to_dict(),
        "training": training or {},
        "accuracy": accuracy or {},
    }
