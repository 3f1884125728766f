"""An independent judge of clearance: spheres against shapes and each other, in NumPy."""

import numpy as np

from mfik.collision import Box, Capsule, Cylinder, HalfSpace, PointCloud, Sphere
from mfik.collision.pairs import frame_transforms, sphere_centers
from mfik.collision.poses import as_transform


def distance_to(shape, points):
    """Signed distances of points [N, 3] to a shape [m], [N]."""
    transform = as_transform("pose", shape.pose)
    local = (points - transform[:3, 3]) @ transform[:3, :3]
    if isinstance(shape, Sphere):
        return np.linalg.norm(local, axis=-1) - shape.radius
    if isinstance(shape, HalfSpace):
        return local[:, 2]
    if isinstance(shape, PointCloud):
        return np.linalg.norm(local[:, None] - np.asarray(shape.points), axis=-1).min(-1) - shape.radius
    if isinstance(shape, Capsule):
        along = np.clip(local[:, 2], -shape.length / 2, shape.length / 2)
        return np.linalg.norm(local - along[:, None] * [0, 0, 1], axis=-1) - shape.radius
    if isinstance(shape, Box):
        past = np.abs(local) - np.asarray(shape.size) / 2
    else:
        assert isinstance(shape, Cylinder)
        radial = np.linalg.norm(local[:, :2], axis=-1)
        past = np.stack([radial - shape.radius, np.abs(local[:, 2]) - shape.length / 2], axis=-1)
    return np.linalg.norm(np.maximum(past, 0), axis=-1) + np.minimum(past.max(-1), 0)


def clearance(robot, q, shapes=(), self_collision=True, allowance=0.0):
    """Clearance [m] of a configuration [J], or of each of many [N, J], which takes a tenth of the time.

    Links that no joint moves are not compared with shapes, and links count as farther from each other by `allowance`.
    """
    q = np.asarray(q)
    frames = frame_transforms(robot.chain, np.atleast_2d(q))
    links = {link.name: link for link in robot.body.links}
    centers = {name: sphere_centers(link, frames) for name, link in links.items()}
    found = np.full(len(frames), np.inf)
    for pair in robot.body.pairs:
        if self_collision and pair.reason == "checked":
            offset = np.linalg.norm(centers[pair.first][:, :, None] - centers[pair.second][:, None], axis=-1)
            radii = links[pair.first].spheres[:, None, 3] + links[pair.second].spheres[:, 3]
            found = np.minimum(found, (offset - radii).min((1, 2)) + allowance)
    for shape in shapes:
        for name, link in links.items():
            if link.frame > 0:
                distance = distance_to(shape, centers[name].reshape(-1, 3)).reshape(len(frames), -1)
                found = np.minimum(found, (distance - link.spheres[:, 3]).min(-1))
    return found if q.ndim > 1 else found[0]
