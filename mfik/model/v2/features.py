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

# Sparse matrices by column: the rows of the entries and their values.
_QUADRATIC = (  # a rotation less identity, [9], of the products of two components of its quaternion (w, x, y, z), [16]
    16,
    (
        {10: -2, 15: -2}, {6: 2, 3: -2}, {7: 2, 2: 2},
        {6: 2, 3: 2}, {5: -2, 15: -2}, {11: 2, 1: -2},
        {7: 2, 2: -2}, {11: 2, 1: 2}, {5: -2, 10: -2},
    ),
)  # fmt: skip
_ANTISYMMETRIC = (  # of a rotation matrix, [9], axis times sine, [3], and cosine plus 1/2
    9,
    ({7: 0.5, 5: -0.5}, {2: 0.5, 6: -0.5}, {3: 0.5, 1: -0.5}, {0: 0.5, 4: 0.5, 8: 0.5}),
)
# The rotation about z by -a less its entry that is 1, [9], of cos a and sin a.
_TURN: tuple[int, Sequence[Mapping[int, float]]] = (2, ({0: 1}, {1: 1}, {}, {1: -1}, {0: 1}, {}, {}, {}, {}))
# Which of a matrix's entries, [3, 3], are multiplied to its cofactors: first times second less third times fourth.
_COFACTORS = [
    4, 5, 3, 7, 8, 6, 1, 2, 0,
    8, 6, 7, 2, 0, 1, 5, 3, 4,
    5, 3, 4, 8, 6, 7, 2, 0, 1,
    7, 8, 6, 1, 2, 0, 4, 5, 3,
]  # fmt: skip
# Of a symmetric matrix, [6, 6], the blocks [3, 3] above left, above right and below right.
_BLOCKS = [6 * (row + i) + column + j for row, column in ((0, 0), (0, 3), (3, 3)) for i in range(3) for j in range(3)]
_CROSS = [1, 2, 0, 5, 3, 4, 2, 0, 1, 4, 5, 3]  # of two vectors, [6]: the same for their product


class Target(NamedTuple):
    """What `Geometry.reference` takes of target poses, in the frame F and with lengths / L.

    Attributes:
        azimuth: Of F, from the first joint's frame before its motion, as what is taken from each joint, [N, J].
        rotation: Of the tool, [N, 3, 3].
        position: Of the tool, [N, 3].
        wanted: Rotation of M* before the last joint turns it back, [N, 3, 3].
        wanted_position: The same of its position, [N, 3].
    """

    azimuth: Tensor
    rotation: Tensor
    position: Tensor
    wanted: Tensor
    wanted_position: Tensor


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
    first: Tensor
    last: Tensor
    tip: Tensor
    identity: Tensor
    upright: Tensor
    quadratic: Tensor
    antisymmetric: Tensor
    turn: Tensor
    diagonal: Tensor
    midpoint: Tensor
    per_range: Tensor
    turns: Tensor
    slides: Tensor
    per_length: Tensor
    only_first: Tensor
    only_x: Tensor
    order: Tensor
    cross: Tensor
    cofactors: Tensor
    blocks: Tensor

    def __init__(self, robot: Robot) -> None:
        super().__init__()
        self.kinds = robot.kinds
        origins = robot.chain.transforms()
        dof = len(self.kinds)
        turning = [joint for joint, kind in enumerate(self.kinds[:-1]) if kind != "prismatic"]
        self.scale = 2.0 / float(torch.linalg.vector_norm(origins[..., 3], dim=-1).sum())  # 1 / L
        for name, value in self.reference_constants(robot).items():  # they follow from what every file describes
            self.register_buffer(name, value.float(), persistent=False)
        # Of what `reference` joins - places, sines, cosines; position and rotation of M*; M, [4, 4]; both differences;
        # the step - the order in which they are features.
        places, sines, cosines, vectors = 0, dof, 2 * dof, 3 * dof
        own = vectors + 12
        order = [
            *range(places, places + dof),
            *(sines + joint for joint in turning),
            *(cosines + joint for joint in turning),
            *range(vectors, vectors + 12),
            *(own + 4 * row + 3 for row in range(3)),
            *(own + 4 * row + column for row in range(3) for column in range(3)),
            *range(own + 16, own + 16 + 6 + dof),
        ]
        indices = {"order": order, "cross": _CROSS, "cofactors": _COFACTORS, "blocks": _BLOCKS}
        # On the device: a list as an index would be copied there anew in every call.
        for name, index in indices.items():
            self.register_buffer(name, torch.tensor(index, device=origins.device, dtype=torch.long), persistent=False)
        self.size = 2 * dof + 2 * len(turning) + 30
        self.constants = ops.GeometryRobot.of(robot, self.size)

    def reference_constants(self, robot: Robot) -> dict[str, Tensor]:
        """Return the constants of `reference` by name, in float64; lengths / L."""
        origins, (lower, upper) = robot.chain.transforms().clone(), robot.limits()
        origins[..., 3] *= self.scale
        limited, turns = (
            torch.tensor([kind != other for kind in self.kinds], device=origins.device, dtype=origins.dtype)
            for other in ("continuous", "prismatic")
        )
        first = origins[0].clone()
        origins[0] = _unit(4, origins)[:3]  # the chain begins at F
        fixed, moving = _motions(self.kinds, origins, self.scale)
        return {
            "fixed": fixed,
            "moving": moving,
            "first": first,
            "last": _homogeneous(origins[-2]),
            "tip": _homogeneous(origins[-1]),
            "identity": _unit(3, origins).flatten(),
            "upright": _unit(9, origins)[8],
            "quadratic": _entries(_QUADRATIC, origins),
            "antisymmetric": _entries(_ANTISYMMETRIC, origins),
            "turn": _entries(_TURN, origins),
            "diagonal": _unit(6, origins),
            "midpoint": 0.5 * (lower + upper),
            "per_range": limited * 2.0 / (upper - lower),
            "turns": turns.unsqueeze(-1),  # [J, 1]
            "slides": self.scale * (1 - turns).unsqueeze(-1),  # [J, 1]
            # No Python float: graphs would hold it in single precision.
            "per_length": origins.new_tensor([self.scale]),
            "only_first": _unit(len(self.kinds), origins)[:1],
            "only_x": _unit(2, origins)[0],
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
        """Compute what `forward` does in tensor operations, few and large ones: they are what exported graphs hold.

        Derivatives of higher order go through them, too. Autocast does not: lengths need single precision.
        """
        if torch.is_autocast_enabled(q.device.type):
            with torch.autocast(q.device.type, enabled=False):
                return self.reference(q, target)
        if not isinstance(target, Target):
            target = self.prepare(target)
        target, (sin, cos), frames, tool = self._posed(q, target)
        own = (frames[-2] @ self.last if len(frames) > 1 else self.last.expand(len(q), 4, 4)).flatten(1)  # M

        turn = self._rotation_vector(target.rotation @ tool[:, :3, :3].mT)
        tip = tool[:, :3, 3]
        error = torch.cat((target.position - tip, turn), -1)
        error2 = error.square().sum(-1, keepdim=True)
        place = (q - self.midpoint) * self.per_range
        step = self._step(place, torch.cat(frames, 1)[:, :, :3, 2:], tip.unsqueeze(1), error, error2)

        wanted, wanted_position = target.wanted, target.wanted_position
        if self.kinds[-1] != "prismatic":
            x, y, z = wanted.split(1, -1)
            c, s = cos[:, -1:, None], sin[:, -1:, None]
            wanted = torch.cat((c * x - s * y, s * x + c * y, z), -1)
        still_to_go = wanted_position - own[:, 3:12:4]
        parts = (place, sin, cos, wanted_position, wanted.flatten(1), own, still_to_go, turn, step)
        return torch.cat(parts, -1).index_select(1, self.order), error2

    def errors(self, q: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Return how far the tool is from its target, [m] and [rad], both [N]."""
        target, _, _, tool = self._posed(q, target)
        distance = (target.position - tool[:, :3, 3]).square().sum(-1).sqrt()
        vector, cosine = self._axis_and_cosine(target.rotation @ tool[:, :3, :3].mT)
        return distance / self.per_length, torch.atan2(vector.square().sum(-1).sqrt(), cosine.squeeze(-1))

    def _posed(self, q: Tensor, target: Target) -> tuple[Target, tuple[Tensor, Tensor], list[Tensor], Tensor]:
        """Return the target in F, sines and cosines of the joints [N, J], their frames after their motion, each
        [N, 1, 4, 4], and the tool's, [N, 4, 4]."""
        if self.kinds[-1] == "prismatic":
            slid = target.wanted_position - self.per_length * q[:, -1:] * target.wanted[..., 2]
            target = self._faced(target._replace(wanted_position=slid))
        turned = q - target.azimuth
        sin, cos = turned.sin(), turned.cos()
        links = torch.addmm(self.fixed, torch.cat((cos, sin, q), -1), self.moving).view(-1, len(self.kinds), 4, 4)
        first, *others = links.split(1, 1)
        frames = [first]
        for link in others:
            frames.append(frames[-1] @ link)
        return target, (sin, cos), frames, (frames[-1] @ self.tip).squeeze(1)

    def prepare(self, target_pose: Tensor) -> Target:
        """Return what `reference` takes of target poses [N, 7]."""
        products = (target_pose[:, 3:, None] * target_pose[:, None, 3:]).flatten(1)
        rotation = torch.addmm(self.identity, products, self.quadratic).view(-1, 3, 3)
        rotation = self.first[:, :3].T @ rotation
        position = (self.per_length * target_pose[:, :3] - self.first[:, 3]) @ self.first[:, :3]
        wanted = rotation @ self.tip[:3, :3].T
        wanted_position = position - wanted @ self.tip[:3, 3]
        target = Target(0 * position[:, :1] * self.only_first, rotation, position, wanted, wanted_position)
        return target if self.kinds[-1] == "prismatic" else self._faced(target)  # then it depends on the joints

    def _faced(self, target: Target) -> Target:
        """Return a target turned about the first joint's axis, so that M* is at azimuth 0."""
        if self.kinds[0] == "prismatic" or len(self.kinds) == 1:
            return target
        xy = target.wanted_position[:, :2]
        on_axis = xy.square().sum(-1, keepdim=True) < AXIS_RADIUS**2
        x, y = torch.where(on_axis, self.only_x, xy).split(1, -1)
        radius = (x.square() + y.square()).sqrt()
        turn = torch.addmm(self.upright, torch.cat((x, y), -1) / radius, self.turn).view(-1, 3, 3)
        return Target(
            torch.atan2(y, x) * self.only_first,
            turn @ target.rotation,
            (turn @ target.position.unsqueeze(-1)).squeeze(-1),
            turn @ target.wanted,
            (turn @ target.wanted_position.unsqueeze(-1)).squeeze(-1),
        )

    def _rotation_vector(self, rotation: Tensor) -> Tensor:
        """Return axis times angle [rad] of rotations [N, 3, 3], [N, 3]; it jumps at an angle of pi."""
        vector, cosine = self._axis_and_cosine(rotation)
        sine = (vector.square().sum(-1, keepdim=True) + ANGLE_FLOOR).sqrt()
        return vector * (torch.atan2(sine, cosine) / sine)

    def _axis_and_cosine(self, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """Return axis times sine, [N, 3], and cosine, [N, 1], of the angles of rotations [N, 3, 3]."""
        vector, cosine = (rotation.flatten(1) @ self.antisymmetric).split((3, 1), -1)
        return vector, cosine - 0.5

    def _step(self, place: Tensor, axes: Tensor, tip: Tensor, error: Tensor, error2: Tensor) -> Tensor:
        """Return J^T (J J^T + damping I)^-1 error, scaled.

        Args:
            place: Of the joints within their limits, [N, J].
            axes: The joints' axes and origins, [N, J, 3, 2].
            tip: Position of the tool, [N, 1, 3].
            error: Pose error with lengths / L, [N, 6].
            error2: Its square, [N, 1].
        """
        axis, origin = axes.unbind(-1)
        a, b, c, d = torch.cat((axis, tip - origin), -1).index_select(-1, self.cross).split(3, -1)
        linear, angular = a * b - c * d, axis
        if "prismatic" in self.kinds:
            linear, angular = self.turns * linear + self.slides * axis, self.turns * axis
        columns = torch.cat((linear, angular), -1)  # of J: [N, J, 6]
        pull = (columns @ error.unsqueeze(-1)).squeeze(-1)
        held = (place.abs() >= AT_LIMIT) & (place * pull > 0)
        columns = columns.masked_fill(held.unsqueeze(-1), 0)
        # In double: the matrix's condition is the square of the Jacobian's, up to 1 / DAMPING_FLOOR.
        exact = columns.double()
        damping = (DAMPING_GAIN * error2 + DAMPING_FLOOR).unsqueeze(-1) * self.diagonal
        y = self._solve(exact.mT @ exact + damping, error.double())
        step = (exact @ y).squeeze(-1).to(columns.dtype)
        square = step.square().sum(-1, keepdim=True)
        return step / (1 + square * square)

    def _solve(self, matrix: Tensor, rhs: Tensor) -> Tensor:
        """Return the solution [N, 6, 1] of symmetric, positive definite matrices [N, 6, 6], by blocks of three: no
        format exports a solver."""
        blocks = matrix.flatten(1).index_select(1, self.blocks).split(9, 1)
        upper, beside, lower = (block.view(-1, 3, 3) for block in blocks)
        first, second = rhs.unsqueeze(-1).split(3, 1)
        inverse = self._inverse(upper)
        both = inverse @ torch.cat((beside, first), -1)
        eliminated, first = both.split((3, 1), -1)
        schur = lower - beside.mT @ eliminated
        second = self._inverse(schur) @ (second - beside.mT @ first)
        return torch.cat((first - eliminated @ second, second), 1)

    def _inverse(self, matrix: Tensor) -> Tensor:
        """Return the inverses of symmetric matrices, [N, 3, 3], by their cofactors."""
        a, b, c, d = matrix.flatten(1).index_select(1, self.cofactors).split(9, 1)
        cofactors = (a * b - c * d).view(-1, 3, 3)
        determinant = (matrix * cofactors).sum((1, 2), keepdim=True) / 3
        return cofactors / determinant


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


def _unit(size: int, like: Tensor) -> Tensor:
    """Return a unit matrix of a tensor's type and device."""
    return torch.eye(size, dtype=like.dtype, device=like.device)


def _homogeneous(transform: Tensor) -> Tensor:
    """Return a transform [3, 4] as a matrix [4, 4]."""
    return torch.cat((transform, transform.new_tensor([[0.0, 0.0, 0.0, 1.0]])))


def _entries(matrix: tuple[int, Sequence[Mapping[int, float]]], like: Tensor) -> Tensor:
    """Return a matrix of few entries, of a tensor's type and device."""
    size, columns = matrix
    dense = like.new_zeros(size, len(columns))
    for column, entries in enumerate(columns):
        for row, value in entries.items():
            dense[row, column] = value
    return dense


def _motions(kinds: Sequence[str], origins: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what joints' transforms are made of: `fixed + [cos q, sin q, q] @ moving` is [T_0, ..., T_J-1].

    T_j [4, 4] is from the frame of the joint before, after its motion, to that of joint j after its own.

    Returns:
        [16 J] and [3 J, 16 J], row-major matrices one after another.
    """
    dof = len(kinds)
    fixed, moving = origins.new_zeros(dof, 4, 4), origins.new_zeros(3, dof, dof, 4, 4)
    for joint, kind in enumerate(kinds):
        link, turned = _homogeneous(origins[joint]), origins.new_zeros(2, 4, 4)
        if kind == "prismatic":
            fixed[joint] = link
            moving[2, joint, joint, :, 3] = scale * link[:, 2]
            continue
        turned[0, 0, 0] = turned[0, 1, 1] = turned[1, 1, 0] = 1.0  # of the cosine, and of the sine
        turned[1, 0, 1] = -1.0
        fixed[joint, :, 2:] = link[:, 2:]
        moving[:2, joint, joint] = link @ turned
    return fixed.flatten(), moving.view(3 * dof, 16 * dof)
