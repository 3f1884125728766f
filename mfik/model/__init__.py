"""Networks: v1 learns the robot's geometry from samples, v2 is given it."""

from mfik.model.registry import VERSIONS, SingleStep, build_network, make_network, read_config

__all__ = ["VERSIONS", "SingleStep", "build_network", "make_network", "read_config"]
