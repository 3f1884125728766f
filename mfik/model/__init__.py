"""Networks: type v1 learns the robot's geometry from samples, type v2 is given it."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("mfik.model needs PyTorch: pip install 'mfik[train]'")

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
