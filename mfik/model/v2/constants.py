"""The constants of a robot that `Geometry.reference` multiplies by, and the entries that it gathers.

Transforms are flat where [16] is written, row by row. L, F and M are those of `Geometry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mfik.robots import Robot

# These five also stand in csrc/kernels/geometry.hpp.
DAMPING_GAIN = 0.02  # damping of the step by squared pose error, with lengths in halves of the arm's
DAMPING_FLOOR = 1e-5  # its least value
AT_LIMIT = 1 - 1e-5  # of half a joint's range from its midpoint: there it is at its limit
AXIS_RADIUS = 1e-12  # of the arm's half length: what is nearer to the first joint's axis has no azimuth
ANGLE_FLOOR = 1e-12  # keeps the axis of a vanishing rotation error finite

# Sparse matrices: the values of the entries by row and column.
# Of the products of two components of a quaternion (w, x, y, z), [10], to its rotation less identity, [16].
_QUADRATIC = {
    (7, 0): -2, (9, 0): -2, (5, 1): 2, (3, 1): -2, (6, 2): 2, (2, 2): 2,
    (5, 4): 2, (3, 4): 2, (4, 5): -2, (9, 5): -2, (8, 6): 2, (1, 6): -2,
    (6, 8): 2, (2, 8): -2, (8, 9): 2, (1, 9): 2, (4, 10): -2, (7, 10): -2,
}  # fmt: skip
# Of [R, p; 0, 1], where R is the rotation between target and tool, and p the tool's position: axis times sine, [3], the
# same and a floor, [4], and cosine, [1], of its angle; and p, [3].
_DIFFERENCE = {
    (6, 0): 0.5, (9, 0): -0.5, (8, 1): 0.5, (2, 1): -0.5, (1, 2): 0.5, (4, 2): -0.5,
    (6, 3): 0.5, (9, 3): -0.5, (8, 4): 0.5, (2, 4): -0.5, (1, 5): 0.5, (4, 5): -0.5, (15, 6): ANGLE_FLOOR**0.5,
    (0, 7): 0.5, (5, 7): 0.5, (10, 7): 0.5, (15, 7): -0.5,
    (3, 8): 1, (7, 9): 1, (11, 10): 1,
}  # fmt: skip
# Which entries of a joint's frame, [16], with its axis a and origin o, are multiplied: first times second.
_PAIRS = (
    6, 10, 2, 10, 2, 6, 2, 6, 10, 2, 6, 10,
    11, 3, 7, 7, 11, 3, 15, 15, 15, 15, 15, 15,
)  # fmt: skip
# Of [R, p; 0, 1] to the matrix, [12, 6], which makes of those products a joint's column of the Jacobian: a x (p - o)
# and a where it turns; a and 0 where it slides, whose products are the last three.
_COLUMN = {
    **{(15, 6 * i + i): -1 for i in range(3)},
    **{(15, 6 * (3 + i) + i): 1 for i in range(3)},
    **{(15, 6 * (6 + i) + 3 + i): 1 for i in range(3)},
    **{(15, 6 * (9 + i) + i): 1 for i in range(3)},
    (11, 6 * 7 + 0): 1, (7, 6 * 8 + 0): -1,
    (3, 6 * 8 + 1): 1, (11, 6 * 6 + 1): -1,
    (7, 6 * 6 + 2): 1, (3, 6 * 7 + 2): -1,
}  # fmt: skip
# Which of a matrix's entries, [3, 3], are multiplied to its cofactors: first times second less third times fourth.
_COFACTORS = (
    4, 5, 3, 7, 8, 6, 1, 2, 0,
    5, 3, 4, 8, 6, 7, 2, 0, 1,
    8, 6, 7, 2, 0, 1, 5, 3, 4,
    7, 8, 6, 1, 2, 0, 4, 5, 3,
)  # fmt: skip
_COFACTOR = {**{(i, i): 1 for i in range(9)}, **{(9 + i, i): -1 for i in range(9)}}  # of those products


def _half_length(robot: Robot) -> float:
    """Return L, half the sum of the link offsets [m]."""
    return 0.5 * float(torch.linalg.vector_norm(robot.chain.transforms()[..., 3], dim=-1).sum())


def number_of_products(robot: Robot) -> int:
    """Return how many products of the entries of a joint's frame make its column of the Jacobian."""
    return 12 if "prismatic" in robot.kinds else 9


def indices(robot: Robot) -> dict[str, list[int]]:
    """Return by name which entries `Geometry.reference` gathers, flat.

    - order: Of what `Geometry.parts` joins - places; cosines, sines and a 1; the first joint's frame, M and M*, [16];
      rotation vector; step - and the difference of M* and M, the features. The first joint's angle from the azimuth is
      that of its frame.
    - fields: Of the rows [4, 9] of a target's rotation, M* and position in F, what `Target` holds of them: the rotation
      transposed, [16], M*, [16], and the position, [3].
    - blocks: Of a symmetric matrix, [6, 6], and what it shall make, [6], one after the other: what the upper left
      block's cofactors are made of, that block, the one beside it transposed, and the upper and the lower right blocks
      with the upper and the lower half of what it shall make.
    - schur: Of the last of these, [3, 4]: what its block's cofactors are made of, that block, and what it shall make.
    """
    dof = robot.dof
    turning = [joint for joint, kind in enumerate(robot.kinds[:-1]) if kind != "prismatic"]
    cosines, sines = dof, 2 * dof
    first, own, wanted, turn = (3 * dof + 1 + 16 * i for i in range(4))
    to_go = turn + 3 + dof
    position = [4 * row + 3 for row in range(3)]
    rotation = [4 * row + column for row in range(3) for column in range(3)]
    return {
        "order": [
            *range(dof),
            *(sines + joint if joint > 0 else first + 4 for joint in turning),
            *(cosines + joint if joint > 0 else first for joint in turning),
            *(wanted + i for i in position + rotation),
            *(own + i for i in position + rotation),
            *(to_go + i for i in position),
            *range(turn, turn + 3 + dof),
        ],
        "fields": [
            *(9 * column + row for row in range(4) for column in range(4)),
            *(9 * row + 4 + column for row in range(4) for column in range(4)),
            *(9 * row + 8 for row in range(3)),
        ],
        "blocks": [
            *(6 * (i // 3) + i % 3 for i in (*_COFACTORS, *range(9))),
            *(6 * row + column for column in (3, 4, 5) for row in range(3)),
            *(i for row in range(6) for i in (6 * row + 3, 6 * row + 4, 6 * row + 5, 36 + row)),
        ],
        "schur": [*(4 * (i // 3) + i % 3 for i in (*_COFACTORS, *range(9))), *position],
    }


def matrices(robot: Robot) -> dict[str, Tensor]:
    """Return by name what `Geometry.reference` multiplies by and adds, in float64; lengths / L.

    None is a Python float, which graphs would hold in single precision, or leave out where it is small. Those that
    `add_product` takes are halved.
    """
    scale, num_products = 1.0 / _half_length(robot), number_of_products(robot)
    origins, (lower, upper) = _homogeneous(robot.chain.transforms()), robot.limits()
    origins[:, :3, 3] *= scale
    limited, turns = (
        torch.tensor([kind != other for kind in robot.kinds], device=origins.device, dtype=origins.dtype)
        for other in ("continuous", "prismatic")
    )
    first, unit = origins[0].clone(), torch.eye(4, device=origins.device, dtype=origins.dtype)
    origins[0] = unit  # the chain begins at F
    motions = _motions(robot.kinds, origins, scale)
    pose_pairs, posing, unposed = _posing(first.inverse(), origins[-1].inverse(), scale)
    unit6 = torch.eye(6, device=origins.device, dtype=origins.dtype).flatten()
    per_range = limited * 2.0 / (upper - lower)
    column = {(row, 11 + i): value for (row, i), value in _COLUMN.items() if i < 6 * num_products}
    pairs = [entry for i, entry in enumerate(_PAIRS) if i % 12 < num_products]
    return {
        "motions": motions,
        "identity": unit.flatten(),
        "pose_pairs": pose_pairs,
        "posing": 0.5 * posing,
        "unposed": unposed,
        # The rotation about z by -a less what does not depend on a, of cos a and sin a.
        "upright": _entries((1, 16), {(0, 10): 1, (0, 15): 1}, unit)[0],
        "turn": 0.5 * _entries((2, 16), {(0, 0): 1, (1, 1): 1, (1, 4): -1, (0, 5): 1}, unit),
        "slide": _entries((1, 16), {(0, 11): -scale}, unit),
        "axis_radius": unit.new_tensor([AXIS_RADIUS]),
        "per_range": per_range,
        "origin": -0.5 * (lower + upper) * per_range,
        "difference": _entries((16, 11 + 6 * num_products), {**_DIFFERENCE, **column}, unit),
        "pairs": _entries((16, len(pairs)), {(entry, i): 1 for i, entry in enumerate(pairs)}, unit),
        "motion": torch.stack((turns,) * 9 + (scale * (1 - turns),) * 3, -1)[:, :num_products],
        "damping": DAMPING_GAIN * unit6,
        "least_damping": DAMPING_FLOOR * unit6,
        "cofactor": _entries((18, 9), _COFACTOR, unit),
        "third": unit.new_full((9, 1), 1 / 3),
        "per_length": unit.new_tensor([scale]),
        "only_x": unit[0, :2],
        "nothing": unit.new_zeros(1),
        "one": unit.new_ones(1),
        "at_limit": unit.new_tensor([AT_LIMIT]),
    }


def _homogeneous(transforms: Tensor) -> Tensor:
    """Return transforms [n, 3, 4] as matrices [n, 4, 4]."""
    return torch.cat((transforms, transforms.new_tensor([[[0.0, 0.0, 0.0, 1.0]]]).expand(len(transforms), 1, 4)), 1)


def _entries(shape: tuple[int, int], entries: Mapping[tuple[int, int], float], like: Tensor) -> Tensor:
    """Return a matrix of few entries, of a tensor's type and device."""
    dense = like.new_zeros(shape)
    for place, value in entries.items():
        dense[place] = value
    return dense


def _posing(first: Tensor, tip: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what target poses, [7], become fields of `Target` by: products of the components of the quaternion, [10],
    are the product of what the halves of `pairs` select. `unposed + [products, pose] posing` is what stands in the rows
    [4, 9] of the rotation as a transform, M* before the last joint turns it back, and the position with a 1; and then x
    and y of that M*.

    Args:
        first: From the base to the first joint's frame before its motion, [4, 4].
        tip: From the tool to M, [4, 4].
        scale: Of lengths.

    Returns:
        `pairs` [7, 20], `posing` [17, 38] and `unposed` [38].
    """
    pairs = [(i, j) for i in range(4) for j in range(i, 4)]
    chosen = {(3 + pair[side], 10 * side + k): 1.0 for k, pair in enumerate(pairs) for side in range(2)}
    to_transform = _entries((17, 16), {**_QUADRATIC, **{(10 + i, 4 * i + 3): scale for i in range(3)}}, first)
    entries = first @ torch.eye(16, device=first.device, dtype=first.dtype).view(16, 4, 4)
    rotation, wanted = entries.clone(), entries @ tip
    rotation[:, :3, 3] = 0
    by_entry = torch.cat((torch.cat((rotation, wanted, entries[:, :, 3:]), 2).flatten(1), wanted[:, :2, 3]), 1)
    unit = torch.eye(4, device=first.device, dtype=first.dtype).flatten()
    return _entries((7, 20), chosen, first), to_transform @ by_entry, unit @ by_entry


def _motions(kinds: Sequence[str], origins: Tensor, scale: float) -> Tensor:
    """Return what joints' transforms are made of: it makes [T_0, ..., T_J-2, last, tool, back] of [cos q, sin q, 1, q].
    Where no joint slides there is no q.

    T_j [4, 4] is from the frame of the joint before, after its motion, to that of joint j after its own; `last` and
    `tool` lead from T_J-2 to M and to the tool. What turns M* back is the last joint's motion if it turns, reversed.

    Args:
        kinds: Of the joints.
        origins: Of the joints and the tool, [J + 1, 4, 4].
        scale: Of lengths.

    Returns:
        [3 J + 1 or 2 J + 1, 16 (J + 2)], row-major matrices one after another.
    """
    dof = len(kinds)
    tool, back = dof, dof + 1
    unit = torch.eye(4, dtype=origins.dtype, device=origins.device)
    fixed, moving = origins.new_zeros(dof + 2, 4, 4), origins.new_zeros(3, dof, dof + 2, 4, 4)
    fixed[dof - 1] = origins[dof - 1]
    for joint, kind in enumerate(kinds):
        link, turned, slid = origins[joint], origins.new_zeros(2, 4, 4), origins.new_zeros(4, 4)
        turned[0, 0, 0] = turned[0, 1, 1] = turned[1, 1, 0] = 1.0  # of the cosine, and of the sine
        turned[1, 0, 1] = -1.0
        slid[2, 3] = scale
        at, after = (tool, origins[dof]) if joint == dof - 1 else (joint, unit)
        if kind == "prismatic":
            fixed[at] = link @ after
            moving[2, joint, at] = link @ slid @ after
            continue
        fixed[at, :, 2:] = link[:, 2:]
        fixed[at] = fixed[at] @ after
        moving[:2, joint, at] = link @ turned @ after
    if kinds[-1] == "prismatic":
        fixed[back] = unit
    else:
        fixed[back, 2, 2] = fixed[back, 3, 3] = 1.0
        moving[:2, dof - 1, back] = turned.mT
    made = torch.cat((moving[:2].flatten(0, 1), fixed.unsqueeze(0), moving[2]))
    return made[: 3 * dof + 1 if "prismatic" in kinds else 2 * dof + 1].flatten(1)
