"""Networks: type v1 learns the robot's geometry from samples, type v2 is given it."""

from mfik import needs_torch  # noqa: F401
from mfik.model.interface import Network, NetworkConfig, SingleStep
from mfik.model.registry import NETWORK_TYPES, build_network, make_network, read_config

__all__ = [
    "NETWORK_TYPES",
    "Network",
    "NetworkConfig",
    "SingleStep",
    "build_network",
    "make_network",
    "read_config",
]
