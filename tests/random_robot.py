"""A robot that no maker sells: joints of given kinds with arbitrary origins."""

import math

import torch

from mfik import robots
from mfik.kinematics import Chain

HALF_RANGE = {"revolute": 2.5, "prismatic": 0.4, "continuous": math.pi}


def random_robot(*kinds: str) -> robots.Robot:
    generator = torch.Generator().manual_seed(5)
    origins = torch.randn(len(kinds) + 1, 3, 4, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(origins[..., :3])
    origins[..., :3] = rotation * torch.linalg.det(rotation)[:, None, None]
    origins[..., 3] *= 0.3
    limit = torch.tensor([HALF_RANGE[kind] for kind in kinds], dtype=torch.float64)
    names = tuple(f"joint{j}" for j in range(len(kinds)))
    return robots.Robot("random", "base", "tool", Chain(origins, kinds), names, -limit, limit)


def mixed_robot() -> robots.Robot:
    """Eight joints of every kind."""
    return random_robot(
        "revolute", "prismatic", "continuous", "revolute", "prismatic", "continuous", "revolute", "revolute"
    )
