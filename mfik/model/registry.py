"""What the networks of all versions share: how one is made, and its single step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.model import v1, v2
from mfik.robots import Robot

VERSIONS = ("v1", "v2")


def make_network(version: str, size: str, robot: Robot) -> v1.MeanFlowNet | v2.MeanFlowNet:
    """Return an untrained network of a preset size for a robot.

    Args:
        version: One of VERSIONS.
        size: Of `v1.PRESETS` or `v2.PRESETS`.
        robot: The robot.

    Raises:
        ArgumentError: There is no such version or size.
    """
    if version not in VERSIONS:
        raise ArgumentError(f"version: expected one of {VERSIONS}, got {version!r:.60}")
    config = (v1 if version == "v1" else v2).ModelConfig.preset(robot.dof, size)
    return _network(config, robot)


def build_network(document: dict[str, Any], robot: Robot) -> v1.MeanFlowNet | v2.MeanFlowNet:
    """Return the network that a configuration's `to_dict` describes, with weights that are to be replaced.

    Raises:
        ArgumentError: The document is of no known type, has unknown fields or values, or is not for the robot.
    """
    return _network(read_config(document), robot)


def read_config(document: dict[str, Any]) -> v1.ModelConfig | v2.ModelConfig:
    """Read the `to_dict` document of either version.

    Raises:
        ArgumentError: The document is of no known type, or has unknown fields or values.
    """
    kind = document.get("type")
    if kind not in VERSIONS:
        raise ArgumentError(f"model type: expected one of {VERSIONS}, got {kind!r:.60}; update mfik")
    return (v1 if kind == "v1" else v2).ModelConfig.from_dict(document)


def _network(config: v1.ModelConfig | v2.ModelConfig, robot: Robot) -> v1.MeanFlowNet | v2.MeanFlowNet:
    return v1.MeanFlowNet(config) if isinstance(config, v1.ModelConfig) else v2.MeanFlowNet(config, robot)


class SingleStep(nn.Module):
    """What is exported: (q_ref, target_pose) -> q_solution = q_ref + u(q_ref, 0, 1)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor:
        """Map q_ref [N, J] and target_pose [N, 7] to q_solution [N, J]."""
        r = torch.zeros_like(q_ref[:, :1])
        return q_ref + self.model(q_ref, target_pose, r, torch.ones_like(r))
