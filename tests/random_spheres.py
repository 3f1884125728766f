"""Obstacles around an arm."""

import numpy as np

from mfik.collision import Sphere


def random_spheres(rng, size, count=8):
    """Return spheres at 0.6 `size` from the axis of the first joint, up to 0.9 `size` high, [m]."""
    shapes = []
    for i in range(count):
        angle = rng.uniform(-np.pi, np.pi)
        place = size * np.array([0.6 * np.cos(angle), 0.6 * np.sin(angle), rng.uniform(0.0, 0.9)])
        shapes.append(Sphere(rng.uniform(0.03, 0.12), [*place, 1, 0, 0, 0], f"ball {i}"))
    return shapes
