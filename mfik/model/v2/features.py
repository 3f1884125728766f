"""What the network of type v2 is told of a state and its target: the robot's own geometry.

Invariant under the two symmetries of a serial chain: turning the target about the first joint's axis together with that
joint, and about the last joint's axis together with that one. Only the joints' places within their limits tell such
states apart. csrc/kernels/geometry.hpp computes the same, and its gradient, in C++.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mfik import ops
from mfik.robots import Robot

# These five also stand in csrc/kernels/geometry.hpp.
DAMPING_GAIN = 0.02  # damping of the step by squared pose error, with lengths in halves of the arm's
DAMPING_FLOOR = 1e-5  # its least value
AT_LIMIT = 1 - 1e-5  # of half a joint's range from its midpoint: there it is at its limit
AXIS_RADIUS = 1e-12  # of the arm's half length: what is nearer to the first joint's axis has no azimuth
ANGLE_FLOOR = 1e-12  # keeps the axis of a vanishing rotation error finite

# What is linear stands in sparse matrices, of which an entry is named by its row and column. Transforms are flat, [16].
_QUADRATIC = {  # of the products of two components of a quaternion (w, x, y, z), [16], to its rotation less identity
    (10, 0): -2, (15, 0): -2, (6, 1): 2, (3, 1): -2, (7, 2): 2, (2, 2): 2,
    (6, 4): 2, (3, 4): 2, (5, 5): -2, (15, 5): -2, (11, 6): 2, (1, 6): -2,
    (7, 8): 2, (2, 8): -2, (11, 9): 2, (1, 9): 2, (5, 10): -2, (10, 10): -2,
}  # fmt: skip
# Of [R, 0; p, 1], where R is the rotation between target and tool, and p the tool's position: axis times sine, [3], the
# same and a floor, [4], and cosine, [1], of its angle; and p, [3].
_DIFFERENCE = {
    (9, 0): 0.5, (6, 0): -0.5, (2, 1): 0.5, (8, 1): -0.5, (4, 2): 0.5, (1, 2): -0.5,
    (9, 3): 0.5, (6, 3): -0.5, (2, 4): 0.5, (8, 4): -0.5, (4, 5): 0.5, (1, 5): -0.5, (15, 6): ANGLE_FLOOR**0.5,
    (0, 7): 0.5, (5, 7): 0.5, (10, 7): 0.5, (15, 7): -0.5,
    (12, 8): 1, (13, 9): 1, (14, 10): 1,
}  # fmt: skip
# Which entries of a joint's frame, [16], with its axis a and origin o, are multiplied: first times second.
_PAIRS = (
    6, 10, 2, 10, 2, 6, 2, 6, 10, 2, 6, 10,
    11, 3, 7, 7, 11, 3, 15, 15, 15, 15, 15, 15,
)  # fmt: skip
# Of [R, 0; p, 1] to the matrix, [12, 6], which makes of those products a joint's column of the Jacobian: a x (p - o)
# and a where it turns; a and 0 where it slides, whose products are the last three.
_COLUMN = {
    **{(15, 6 * i + i): -1 for i in range(3)},
    **{(15, 6 * (3 + i) + i): 1 for i in range(3)},
    **{(15, 6 * (6 + i) + 3 + i): 1 for i in range(3)},
    **{(15, 6 * (9 + i) + i): 1 for i in range(3)},
    (14, 6 * 7 + 0): 1, (13, 6 * 8 + 0): -1,
    (12, 6 * 8 + 1): 1, (14, 6 * 6 + 1): -1,
    (13, 6 * 6 + 2): 1, (12, 6 * 7 + 2): -1,
}  # fmt: skip
# Which of a matrix's entries, [3, 3], are multiplied to its cofactors: first times second less third times fourth.
_COFACTORS = (
    4, 5, 3, 7, 8, 6, 1, 2, 0,
    5, 3, 4, 8, 6, 7, 2, 0, 1,
    8, 6, 7, 2, 0, 1, 5, 3, 4,
    7, 8, 6, 1, 2, 0, 4, 5, 3,
)  # fmt: skip
_COFACTOR = {**{(i, i): 1 for i in range(9)}, **{(9 + i, i): -1 for i in range(9)}}  # of those products


class Target(NamedTuple):
    """What `Geometry.reference` takes of target poses, in the frame F and with lengths / L.

    Attributes:
        azimuth: Of F, from the first joint's frame before its motion, as what is taken from each joint, [N, J].
        position: Of the tool, [N, 3].
        rotation: Of the tool, as a transform without translation, [N, 1, 4, 4].
        wanted: M* before the last joint turns it back, [N, 1, 4, 4].
    """

    azimuth: Tensor
    position: Tensor
    rotation: Tensor
    wanted: Tensor


class Geometry(nn.Module):
    """Features of (q, target_pose), which end in a damped-least-squares step, and the squared pose error.

    F is the frame of the first joint before its motion, turned about its axis to the azimuth of M* (where that joint
    turns and is not the only one, and M* is not on its axis); L half the sum of the link offsets; M the frame of the
    last joint before its motion, M* that frame as the target wants it if q_J stays. Of one state:

    - (q - midpoint of the limits) / half range of each joint, 0 for continuous ones, [J]
    - sines, then cosines of the turning joints but the last joint, the first one's angle counted from the azimuth
    - position of M* from the first joint, in F, / L, [3], and its rotation, [9]; the same of M, [3 + 9]
    - difference of the two: position / L, [3], and rotation vector [rad], [3], in F
    - the step d, [J]: damped least squares to the tool's target with lengths / L (Nakamura and Hanafusa 1986), damped
      by `DAMPING_GAIN e^2 + DAMPING_FLOOR`, where e^2 is the squared pose error, so that it becomes Newton's near a
      solution (Sugihara 2011), and scaled by `1 / (1 + norm(d)^4)`, as a long step tells little. Joints that are at a
      limit which the error pulls them beyond stay there, and the others make up for them (Bertsekas 1982, projected
      Newton)

    e^2 is the sum of the squares of the tool's position error / L and rotation vector, [1]. All are smooth but for a
    rotation vector of length pi, the azimuth of what is on the first axis, and joints that meet a limit.

    Args:
        robot: The robot.

    Attributes:
        size: Number of features.
        constants: What the native kernels take of the robot.
    """

    fixed: Tensor
    moving: Tensor
    identity: Tensor
    posing: Tensor
    first: Tensor
    last: Tensor
    tip: Tensor
    upright: Tensor
    turn: Tensor
    slide: Tensor
    unmoved: Tensor
    midpoint: Tensor
    per_range: Tensor
    difference: Tensor
    motion: Tensor
    damping: Tensor
    least_damping: Tensor
    cofactor: Tensor
    third: Tensor
    per_length: Tensor
    only_first: Tensor
    only_x: Tensor
    order: Tensor
    pairs: Tensor
    blocks: Tensor
    schur: Tensor

    def __init__(self, robot: Robot) -> None:
        super().__init__()
        self.kinds = robot.kinds
        self.num_products = 12 if "prismatic" in self.kinds else 9  # of a joint's axis and origin
        origins = robot.chain.transforms()
        dof = len(self.kinds)
        turning = [joint for joint, kind in enumerate(self.kinds[:-1]) if kind != "prismatic"]
        self.scale = 2.0 / float(torch.linalg.vector_norm(origins[..., 3], dim=-1).sum())  # 1 / L
        for name, value in self.reference_constants(robot).items():  # they follow from what every file describes
            self.register_buffer(name, value.float(), persistent=False)
        # Of what `parts` joins - places, sines, cosines; M*, M and their difference, [4, 4]; rotation vector; step -
        # the order in which they are features.
        sines, cosines, wanted, own, to_go, turn = dof, 2 * dof, *(3 * dof + 16 * i for i in range(4))
        position = [4 * row + 3 for row in range(3)]
        rotation = [4 * row + column for row in range(3) for column in range(3)]
        order = [
            *range(dof),
            *(sines + joint for joint in turning),
            *(cosines + joint for joint in turning),
            *(wanted + i for i in position + rotation),
            *(own + i for i in position + rotation),
            *(to_go + i for i in position),
            *range(turn, turn + 3 + dof),
        ]
        # Of a symmetric matrix, [6, 6], and what it shall make, [6], flat one after the other: what the upper left
        # block's cofactors are made of, that block, the one beside it transposed, and the upper and the lower right
        # blocks with the upper and the lower half of what it shall make. Of the last of these, [3, 4]: likewise.
        blocks = [
            *(6 * (i // 3) + i % 3 for i in (*_COFACTORS, *range(9))),
            *(6 * row + column for column in (3, 4, 5) for row in range(3)),
            *(i for row in range(6) for i in (6 * row + 3, 6 * row + 4, 6 * row + 5, 36 + row)),
        ]
        schur = [*(4 * (i // 3) + i % 3 for i in (*_COFACTORS, *range(9))), *position]
        pairs = [pair for i, pair in enumerate(_PAIRS) if i % 12 < self.num_products]
        # On the device: a list as an index would be copied there anew in every call.
        for name, index in {"order": order, "pairs": pairs, "blocks": blocks, "schur": schur}.items():
            self.register_buffer(name, torch.tensor(index, device=origins.device, dtype=torch.long), persistent=False)
        self.size = len(order)
        self.constants = ops.GeometryRobot.of(robot, self.size)

    def reference_constants(self, robot: Robot) -> dict[str, Tensor]:
        """Return the constants of `reference` by name, in float64; lengths / L.

        None is a Python float, which graphs would hold in single precision, or leave out where it is small.
        """
        origins, (lower, upper) = _homogeneous(robot.chain.transforms()), robot.limits()
        origins[:, :3, 3] *= self.scale
        limited, turns = (
            torch.tensor([kind != other for kind in self.kinds], device=origins.device, dtype=origins.dtype)
            for other in ("continuous", "prismatic")
        )
        first, unit = origins[0].clone(), torch.eye(4, device=origins.device, dtype=origins.dtype)
        origins[0] = unit  # the chain begins at F
        fixed, moving = _motions(self.kinds, origins, self.scale)
        lengths = {(16 + i, 4 * i + 3): self.scale for i in range(3)}
        unit6 = torch.eye(6, device=origins.device, dtype=origins.dtype).flatten()
        column = {(row, 11 + i): value for (row, i), value in _COLUMN.items() if i < 6 * self.num_products}
        motion = torch.stack((turns,) * 9 + (self.scale * (1 - turns),) * 3, -1)[:, : self.num_products]
        return {
            "fixed": fixed,
            "moving": moving,
            "identity": unit.flatten(),
            "posing": _entries((19, 16), {**_QUADRATIC, **lengths}, unit),
            "first": first.inverse(),
            "last": origins[-2],
            "tip": origins[-1].inverse(),
            # The rotation about z by -a less what does not depend on a, of cos a and sin a.
            "upright": _entries((1, 16), {(0, 10): 1, (0, 15): 1}, unit)[0],
            "turn": _entries((2, 16), {(0, 0): 1, (1, 1): 1, (1, 4): -1, (0, 5): 1}, unit),
            "slide": _entries((1, 16), {(0, 11): -self.scale}, unit),
            "unmoved": _entries((4, 4), {(i, j): 1 for i in range(4) for j in range(4) if j < 3 or i == 3}, unit),
            "midpoint": 0.5 * (lower + upper),
            "per_range": limited * 2.0 / (upper - lower),
            "difference": _entries((16, 11 + 6 * self.num_products), {**_DIFFERENCE, **column}, unit),
            "motion": motion,
            "damping": DAMPING_GAIN * unit6.unsqueeze(0),
            "least_damping": DAMPING_FLOOR * unit6,
            "cofactor": _entries((18, 9), _COFACTOR, unit),
            "third": unit.new_full((9, 1), 1 / 3),
            "per_length": unit.new_tensor([self.scale]),
            "only_first": torch.eye(len(self.kinds), device=unit.device, dtype=unit.dtype)[:1],
            "only_x": unit[0, :2],
        }

    def forward(self, q: Tensor, target: Tensor | Target) -> tuple[Tensor, Tensor]:
        """Compute the features: by native kernels where they run, else, in forward mode and in graphs that are traced,
        by `reference`.

        Args:
            q: Joints [rad or m], [N, J].
            target: T_base_tool [m], unit quaternion of either sign, [N, 7], or what `prepare` makes of it: graphs that
                look several times do that once.

        Returns:
            Features [N, size], the last J of which are the step [rad or m], and squared pose errors, [N, 1].
        """
        if isinstance(target, Target) or is_traced() or not ops.has_geometry(q) or is_dual(q) or is_dual(target):
            return self.reference(q, target)
        return _Fused.apply(q, target, self)

    def reference(self, q: Tensor, target: Tensor | Target) -> tuple[Tensor, Tensor]:
        """Compute what `forward` does in tensor operations.

        Derivatives of higher order go through them, too. Autocast does not: lengths need single precision.
        """
        parts, error2 = self.parts(q, target)
        return parts.index_select(1, self.order), error2

    def parts(self, q: Tensor, target: Tensor | Target) -> tuple[Tensor, Tensor]:
        """Compute what `order` takes the features from, [N, 4 J + 51], the last J of them the step, and squared errors.

        The operations are few and large: they are what exported graphs hold.
        """
        if torch.is_autocast_enabled(q.device.type):
            with torch.autocast(q.device.type, enabled=False):
                return self.parts(q, target)
        if not isinstance(target, Target):
            target = self.prepare(target)
        target, (sin, cos), joints, back, tool = self._posed(q, target)
        own, wanted = joints[-1], target.wanted @ back
        turn, tip, column = self._difference(target.rotation, tool)
        error = torch.cat((target.position - tip, turn), -1)
        error2 = error.square().sum(-1, keepdim=True)
        place = (q - self.midpoint) * self.per_range
        step = self._step(place, self._columns(torch.cat(joints, 1).flatten(2), column), error, error2)
        frames = torch.cat((wanted, own, wanted - own), 1).flatten(1)
        return torch.cat((place, sin, cos, frames, turn, step), -1), error2

    def errors(self, q: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Return how far the tool is from its target, [m] and [rad], both [N]."""
        target, _, _, _, tool = self._posed(q, target)
        sine_axis, _, cosine, tip, _ = self._compared(target.rotation, tool)
        distance = (target.position - tip).square().sum(-1).sqrt()
        return distance / self.per_length, torch.atan2(sine_axis.square().sum(-1).sqrt(), cosine.squeeze(-1))

    def angle(self, sine: Tensor, cosine: Tensor) -> Tensor:
        """Return the angles between 0 and pi [rad], [N, 1], of sines and cosines."""
        return torch.atan2(sine, cosine)

    def _posed(self, q: Tensor, target: Target) -> tuple[Target, tuple[Tensor, Tensor], list[Tensor], Tensor, Tensor]:
        """Return the target in F, sines and cosines of the joints, [N, J], and as [N, 1, 4, 4] frames with the joints'
        axes as z, the last of them M, what turns M* back, and the tool."""
        if self.kinds[-1] == "prismatic":
            back = (self.identity + q[:, -1:] * self.slide).view(-1, 1, 4, 4)
            target = self._faced(target._replace(wanted=target.wanted @ back))
        turned = q - target.azimuth
        sin, cos = turned.sin(), turned.cos()
        motions = torch.addmm(self.fixed, torch.cat((cos, sin, q), -1), self.moving)
        *links, tool, back = motions.view(-1, len(self.kinds) + 1, 4, 4).split(1, 1)
        joints = links[:1]
        for link in links[1:]:
            joints.append(joints[-1] @ link)
        if not joints:  # one joint
            return target, (sin, cos), [self.last.expand(len(q), 1, 4, 4)], back, tool
        return target, (sin, cos), [*joints, joints[-1] @ self.last], back, joints[-1] @ tool

    def prepare(self, target_pose: Tensor) -> Target:
        """Return what `reference` takes of target poses [N, 7]."""
        products = (target_pose[:, 3:, None] * target_pose[:, None, 3:]).flatten(1)
        posing = torch.cat((products, target_pose[:, :3]), -1)
        tool = self.first @ torch.addmm(self.identity, posing, self.posing).view(-1, 1, 4, 4)
        position = tool[:, 0, :3, 3]
        target = Target(0 * position[:, :1] * self.only_first, position, tool * self.unmoved, tool @ self.tip)
        return target if self.kinds[-1] == "prismatic" else self._faced(target)  # then it depends on the joints

    def _faced(self, target: Target) -> Target:
        """Return a target turned about the first joint's axis, so that M* is at azimuth 0."""
        if self.kinds[0] == "prismatic" or len(self.kinds) == 1:
            return target
        xy = target.wanted[:, 0, :2, 3]
        on_axis = xy.square().sum(-1, keepdim=True) < AXIS_RADIUS**2
        x, y = torch.where(on_axis, self.only_x, xy).split(1, -1)
        radius = (x.square() + y.square()).sqrt()
        turn = torch.addmm(self.upright, torch.cat((x, y), -1) / radius, self.turn).view(-1, 1, 4, 4)
        position = (turn[:, 0, :3, :3] @ target.position.unsqueeze(-1)).squeeze(-1)
        azimuth = torch.atan2(y, x) * self.only_first
        return Target(azimuth, position, turn @ target.rotation, turn @ target.wanted)

    def _compared(self, rotation: Tensor, tool: Tensor) -> tuple[Tensor, ...]:
        """Return what `difference` makes of a target's rotation and a tool, both [N, 1, 4, 4]: axis times sine of the
        angle between them, [N, 3], the same and a floor, [N, 4], cosine, [N, 1], the tool's position, [N, 3], and what
        makes columns of the Jacobian, [N, 6 P]."""
        compared = (rotation @ tool.mT).flatten(1) @ self.difference
        return compared.split((3, 4, 1, 3, 6 * self.num_products), -1)

    def _difference(self, rotation: Tensor, tool: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotation vectors [rad], [N, 3], which jump at an angle of pi; the rest as of `_compared`."""
        sine_axis, floored, cosine, tip, column = self._compared(rotation, tool)
        sine = torch.linalg.vector_norm(floored, dim=-1, keepdim=True)
        return sine_axis * (self.angle(sine, cosine) / sine), tip, column

    def _columns(self, joints: Tensor, column: Tensor) -> Tensor:
        """Return the joints' columns of the Jacobian, [N, J, 6], from their frames, [N, J, 16], and what makes them."""
        one, other = joints.index_select(-1, self.pairs).split(self.num_products, -1)
        products = one * other
        if "prismatic" in self.kinds:
            products = products * self.motion
        return products @ column.view(-1, self.num_products, 6)

    def _step(self, place: Tensor, columns: Tensor, error: Tensor, error2: Tensor) -> Tensor:
        """Return J^T (J J^T + damping I)^-1 error, scaled.

        Args:
            place: Of the joints within their limits, [N, J].
            columns: Of J, [N, J, 6].
            error: Pose error with lengths / L, [N, 6].
            error2: Its square, [N, 1].
        """
        pull = columns @ error.unsqueeze(-1)
        held = place.unsqueeze(-1) * pull.sign() >= AT_LIMIT
        # In double: the matrix's condition is the square of the Jacobian's, up to 1 / DAMPING_FLOOR.
        exact = columns.masked_fill(held, 0).double()
        damping = torch.addmm(self.least_damping, error2, self.damping).double()
        y = self._solve((exact.mT @ exact).flatten(1) + damping, error.double())
        step = (exact @ y).squeeze(-1).to(columns.dtype)
        square = step.square().sum(-1, keepdim=True)
        return step / (1 + square * square)

    def _solve(self, matrix: Tensor, wanted: Tensor) -> Tensor:
        """Return x, [N, 6, 1], which symmetric, positive definite matrices, [N, 36], make what is wanted, [N, 6], by
        blocks of three: no format exports a solver."""
        parts = torch.cat((matrix, wanted), 1).index_select(1, self.blocks)
        one, other, upper, beside, right, below = parts.split((18, 18, 9, 9, 12, 12), 1)
        solved = self._inverse(one, other, upper) @ right.view(-1, 3, 4)
        below = below - (beside.view(-1, 3, 3) @ solved).flatten(1)
        one, other, schur, second = below.index_select(1, self.schur).split((18, 18, 9, 3), 1)
        second = self._inverse(one, other, schur) @ second.unsqueeze(-1)
        eliminated, first = solved.split((3, 1), -1)
        return torch.cat((first - eliminated @ second, second), 1)

    def _inverse(self, one: Tensor, other: Tensor, matrix: Tensor) -> Tensor:
        """Return the inverses, [N, 3, 3], of symmetric matrices, [N, 9], by their cofactors, which are differences of
        products, [N, 18]."""
        cofactors = (one * other) @ self.cofactor.to(one.dtype)
        determinant = (matrix * cofactors) @ self.third.to(one.dtype)
        return (cofactors / determinant).view(-1, 3, 3)


def is_dual(value: Tensor) -> bool:
    """Tell whether a value carries a forward-mode tangent."""
    return forward_ad.unpack_dual(value).tangent is not None


def is_traced() -> bool:
    """Tell whether a graph is being made of what is computed."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


class _Fused(torch.autograd.Function):
    """`Geometry.forward` by native kernels.

    The gradient by the joints is native; those by the pose and of higher order go through the reference.
    """

    @staticmethod
    def forward(q: Tensor, target_pose: Tensor, module: Geometry) -> tuple[Tensor, Tensor]:
        return ops.geometry(module.constants, q, target_pose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        q, target_pose, ctx.module = inputs
        ctx.save_for_backward(q, target_pose)

    @staticmethod
    def backward(ctx: Any, by_features: Tensor, by_error2: Tensor) -> tuple[Tensor | None, ...]:
        q, target_pose = ctx.saved_tensors
        if torch.is_grad_enabled() or ctx.needs_input_grad[1]:
            _, pull_back = torch.func.vjp(ctx.module.reference, q, target_pose)  # type: ignore[misc]
            return *pull_back((by_features, by_error2)), None
        return ops.geometry_backward(ctx.module.constants, q, target_pose, by_features, by_error2), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], q: Tensor, target_pose: Tensor, module: Geometry) -> Any:
        size = info.batch_size
        q, target_pose = (
            x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((q, target_pose), in_dims, strict=False)
        )
        features, error2 = _Fused.apply(q.flatten(0, 1), target_pose.flatten(0, 1), module)
        return (features.unflatten(0, (size, -1)), error2.unflatten(0, (size, -1))), (0, 0)


def _homogeneous(transforms: Tensor) -> Tensor:
    """Return transforms [n, 3, 4] as matrices [n, 4, 4]."""
    return torch.cat((transforms, transforms.new_tensor([[[0.0, 0.0, 0.0, 1.0]]]).expand(len(transforms), 1, 4)), 1)


def _entries(shape: tuple[int, int], entries: Mapping[tuple[int, int], float], like: Tensor) -> Tensor:
    """Return a matrix of few entries, of a tensor's type and device."""
    dense = like.new_zeros(shape)
    for place, value in entries.items():
        dense[place] = value
    return dense


def _motions(kinds: Sequence[str], origins: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what joints' transforms are made of: `fixed + [cos q, sin q, q] @ moving` is [T_0, ..., T_J-1, back].

    T_j [4, 4] is from the frame of the joint before, after its motion, to that of joint j after its own; the last one
    ends at the tool. What turns M* back is the last joint's motion if it turns, reversed.

    Args:
        kinds: Of the joints.
        origins: Of the joints and the tool, [J + 1, 4, 4].
        scale: Of lengths.

    Returns:
        [16 (J + 1)] and [3 J, 16 (J + 1)], row-major matrices one after another.
    """
    dof = len(kinds)
    unit = torch.eye(4, dtype=origins.dtype, device=origins.device)
    fixed, moving = origins.new_zeros(dof + 1, 4, 4), origins.new_zeros(3, dof, dof + 1, 4, 4)
    for joint, kind in enumerate(kinds):
        link, turned, slid = origins[joint], origins.new_zeros(2, 4, 4), origins.new_zeros(4, 4)
        turned[0, 0, 0] = turned[0, 1, 1] = turned[1, 1, 0] = 1.0  # of the cosine, and of the sine
        turned[1, 0, 1] = -1.0
        slid[2, 3] = scale
        after = origins[dof] if joint == dof - 1 else unit
        if kind == "prismatic":
            fixed[joint] = link @ after
            moving[2, joint, joint] = link @ slid @ after
            continue
        fixed[joint, :, 2:] = link[:, 2:]
        fixed[joint] = fixed[joint] @ after
        moving[:2, joint, joint] = link @ turned @ after
    if kinds[-1] == "prismatic":
        fixed[dof] = unit
    else:
        fixed[dof, 2, 2] = fixed[dof, 3, 3] = 1.0
        moving[:2, dof - 1, dof] = turned.mT
    return fixed.flatten(), moving.view(3 * dof, 16 * (dof + 1))
