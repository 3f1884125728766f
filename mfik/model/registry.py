"""The network types, by name: one line each makes a type known to training, export, evaluation and loading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mfik.errors import ArgumentError
from mfik.model import v1, v2
from mfik.model.interface import Network, NetworkConfig
from mfik.robots import Robot


class NetworkType(NamedTuple):
    """A network type: its configuration, which has its name, sizes and limits, and what builds it."""

    config: type[NetworkConfig]
    build: Callable[[Any, Robot], Network]


NETWORK_TYPES = {
    entry.config.TYPE: entry
    for entry in (
        NetworkType(v1.ModelConfig, lambda config, robot: v1.MeanFlowNet(config)),
        NetworkType(v2.ModelConfig, v2.MeanFlowNet),
    )
}


def make_network(network_type: str, size: str, robot: Robot) -> Network:
    """Return an untrained network of a named size for a robot.

    Args:
        network_type: One of NETWORK_TYPES.
        size: One of the type's `config.SIZES`.
        robot: The robot.

    Raises:
        ArgumentError: There is no such type or size.
    """
    if network_type not in NETWORK_TYPES:
        raise ArgumentError(f"network_type: expected one of {tuple(NETWORK_TYPES)}, got {network_type!r:.60}")
    config, build = NETWORK_TYPES[network_type]
    return build(config.preset(robot.dof, size), robot)


def build_network(document: dict[str, Any], robot: Robot) -> Network:
    """Return the network that a configuration's `to_dict` describes, with weights that are to be replaced.

    Raises:
        ArgumentError: The document is of no known type, has unknown fields or values, or is not for the robot.
    """
    config = read_config(document)
    if config.dof != robot.dof:
        raise ArgumentError(f"model.dof: expected {robot.dof} (the robot's joints), got {config.dof}")
    return NETWORK_TYPES[config.TYPE].build(config, robot)


def read_config(document: dict[str, Any]) -> NetworkConfig:
    """Read the `to_dict` document of any network type.

    Raises:
        ArgumentError: The document is of no known type, or has unknown fields or values.
    """
    kind = document.get("type")
    if kind not in NETWORK_TYPES:
        raise ArgumentError(f"model.type: expected one of {tuple(NETWORK_TYPES)}, got {kind!r:.60}; update mfik")
    return NETWORK_TYPES[kind].config.from_dict(document)
