"""What the network of type v2 is told of a state and its target: the robot's own geometry.

Invariant under the two symmetries of a serial chain: turning the target about the first joint's axis together with that
joint, and about the last joint's axis together with that one. Only the joints' places within their limits tell such
states apart. csrc/kernels/geometry.hpp computes the same, and its gradient, in C++.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mfik import ops
from mfik.robots import Robot

# These five also stand in csrc/kernels/geometry.hpp.
DAMPING_GAIN = 0.02  # damping of the step by squared pose error, with lengths in halves of the arm's
DAMPING_FLOOR = 1e-5  # its least value
AT_LIMIT = 1 - 1e-5  # of half a joint's range from its midpoint: there it is at its limit
AXIS_FLOOR = 1e-6  # [m^2]: keeps the azimuth of a target on the first joint's axis finite
ANGLE_FLOOR = 1e-12  # keeps the axis of a vanishing rotation error finite

# Of vectors [3, 10], row-major, as `reference` has them (the position of M*, of M, their difference; the rotations of
# both; the rotation vector), the order in which they are features: a vector after another, rotations row by row.
_ORDER = [
    10 * row + column
    for columns in ((0,), (3, 4, 5), (1,), (6, 7, 8), (2,), (9,))
    for row in range(3)
    for column in columns
]


# Sparse matrices by column: the rows of the entries and their values.
_QUADRATIC = (  # a rotation less identity, [9], of the products of two components of its quaternion (w, x, y, z), [16]
    16,
    (
        {10: -2, 15: -2}, {6: 2, 3: -2}, {7: 2, 2: 2},
        {6: 2, 3: 2}, {5: -2, 15: -2}, {11: 2, 1: -2},
        {7: 2, 2: -2}, {11: 2, 1: 2}, {5: -2, 10: -2},
    ),
)  # fmt: skip
_ANTISYMMETRIC = (  # of a rotation matrix, [9], axis times sine, [3], and trace
    9,
    ({7: 0.5, 5: -0.5}, {2: 0.5, 6: -0.5}, {3: 0.5, 1: -0.5}, {0: 1, 4: 1, 8: 1}),
)


class Geometry(nn.Module):
    """Features of (q, target_pose), which end in a damped-least-squares step, and the squared pose error.

    F is the frame of the first joint before its motion, turned about its axis to the azimuth of the target (where that
    joint turns); L half the sum of the link offsets; M the frame of the last joint before its motion, M* that frame as
    the target wants it if q_J stays. Of one state:

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
    rotation vector of length pi, and for joints that meet a limit.

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
    quadratic: Tensor
    antisymmetric: Tensor
    diagonal: Tensor
    midpoint: Tensor
    per_range: Tensor
    turns: Tensor
    weight: Tensor
    turning: Tensor
    order: Tensor

    def __init__(self, robot: Robot) -> None:
        super().__init__()
        self.kinds = robot.kinds
        origins = robot.chain.transforms()
        turning = [joint for joint, kind in enumerate(self.kinds[:-1]) if kind != "prismatic"]
        self.scale = 2.0 / float(torch.linalg.vector_norm(origins[..., 3], dim=-1).sum())  # 1 / L
        for name, value in self.reference_constants(robot).items():  # they follow from what every file describes
            self.register_buffer(name, value.float(), persistent=False)
        # On the device: a list as an index would be copied there anew in every call.
        for name, index in {"turning": turning, "order": _ORDER}.items():
            self.register_buffer(name, torch.tensor(index, device=origins.device, dtype=torch.long), persistent=False)
        self.size = 2 * len(self.kinds) + 2 * len(turning) + 30
        self.constants = ops.GeometryRobot.of(robot, self.size)

    def reference_constants(self, robot: Robot) -> dict[str, Tensor]:
        """Return the constants of `reference` by name, in float64."""
        origins, (lower, upper) = robot.chain.transforms(), robot.limits()
        limited, turns = (
            torch.tensor([kind != other for kind in self.kinds], device=origins.device, dtype=origins.dtype)
            for other in ("continuous", "prismatic")
        )
        fixed, moving = _motions(self.kinds, origins)
        return {
            "fixed": fixed,
            "moving": moving,
            "first": origins[0],
            "last": _homogeneous(origins[-2]),
            "tip": _homogeneous(origins[-1]),
            "identity": torch.eye(3, device=origins.device, dtype=origins.dtype).flatten(),
            "quadratic": _entries(_QUADRATIC, origins),
            "antisymmetric": _entries(_ANTISYMMETRIC, origins),
            "diagonal": torch.eye(6, device=origins.device, dtype=origins.dtype),
            "midpoint": 0.5 * (lower + upper),
            "per_range": limited * 2.0 / (upper - lower),
            "turns": turns.unsqueeze(-1),  # [J, 1]
            "weight": torch.cat((self.scale * torch.ones_like(origins[0, :, 0]), torch.ones_like(origins[0, :, 0]))),
        }

    def forward(self, q: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features: by native kernels where they run, else, in forward mode and in graphs that are traced,
        by `reference`.

        Args:
            q: Joints [rad or m], [N, J].
            target_pose: T_base_tool [m], unit quaternion of either sign, [N, 7].

        Returns:
            Features [N, size], the last J of which are the step [rad or m], and squared pose errors, [N, 1].
        """
        if is_traced() or not ops.has_geometry(q) or is_dual(q) or is_dual(target_pose):
            return self.reference(q, target_pose)
        return _Fused.apply(q, target_pose, self)

    def reference(self, q: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `forward` does in tensor operations, few and large ones: they are what exported graphs hold.

        Derivatives of higher order go through them, too. Autocast does not: lengths need single precision.
        """
        if torch.is_autocast_enabled(q.device.type):
            with torch.autocast(q.device.type, enabled=False):
                return self.reference(q, target_pose)
        joints, sin, cos = len(self.kinds), q.sin(), q.cos()
        links = (
            torch.addmm(self.fixed, torch.cat((cos, sin, q), -1), self.moving).unflatten(1, (joints, 4, 4)).unbind(1)
        )
        frames = [links[0]]  # of the joints after their motion
        for link in links[1:]:
            frames.append(frames[-1] @ link)
        tool = frames[-1] @ self.tip
        # Of the last joint, before its motion: M.
        own = frames[-2] @ self.last if joints > 1 else self.last.expand(len(q), 4, 4)
        products = (target_pose[:, 3:, None] * target_pose[:, None, 3:]).flatten(1)
        target = torch.addmm(self.identity, products, self.quadratic).unflatten(1, (3, 3))
        target_position = target_pose[:, :3]

        turn = _rotation_vector((target @ tool[:, :3, :3].mT).flatten(1) @ self.antisymmetric)
        error = torch.cat((self.scale * (target_position - tool[:, :3, 3]), turn), -1)
        error2 = error.square().sum(-1, keepdim=True)
        place = (q - self.midpoint) * self.per_range
        step = self._step(place, torch.stack(frames, 1)[:, :, :3, 2:], tool[:, None, :3, 3], error, error2)

        # M* = target * tool^-1 * (motion of the last joint)^-1
        wanted = target @ self.tip[:3, :3].T
        wanted_position = target_position - wanted @ self.tip[:3, 3]
        if self.kinds[-1] == "prismatic":
            wanted_position = wanted_position - q[:, -1:] * wanted[..., 2]
        else:
            x, y, z = wanted.split(1, -1)
            c, s = cos[:, -1:, None], sin[:, -1:, None]
            wanted = torch.cat((c * x - s * y, s * x + c * y, z), -1)
        from_joint1, own_from_joint1 = wanted_position - self.first[:, 3], own[:, :3, 3] - self.first[:, 3]
        lengths = self.scale * torch.stack((from_joint1, own_from_joint1, from_joint1 - own_from_joint1), -1)
        vectors = torch.cat((lengths, wanted, own[:, :3, :3], turn.unsqueeze(-1)), -1)  # [N, 3, 10]
        vectors = self.first[:, :3].T @ vectors
        if self.kinds[0] != "prismatic":
            x, y, z = vectors.split(1, 1)
            azimuth = vectors[:, :2, 0] / self.scale
            azimuth = azimuth * (azimuth.square().sum(-1, keepdim=True) + AXIS_FLOOR).rsqrt()
            c, s = azimuth.unsqueeze(-1).split(1, 1)
            vectors = torch.cat((c * x + s * y, c * y - s * x, z), 1)
            c, s = azimuth.split(1, -1)
            first_sin, first_cos = sin[:, :1] * c - cos[:, :1] * s, cos[:, :1] * c + sin[:, :1] * s
            sin, cos = torch.cat((first_sin, sin[:, 1:]), -1), torch.cat((first_cos, cos[:, 1:]), -1)
        turned = sin.index_select(1, self.turning), cos.index_select(1, self.turning)
        return torch.cat((place, *turned, vectors.flatten(1).index_select(1, self.order), step), -1), error2

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
        linear = torch.linalg.cross(axis, tip - origin)
        if "prismatic" in self.kinds:
            linear, angular = self.turns * linear + (1 - self.turns) * axis, self.turns * axis
        else:
            angular = axis
        columns = self.weight * torch.cat((linear, angular), -1)  # of J: [N, J, 6]
        pull = (columns @ error.unsqueeze(-1)).squeeze(-1)
        held = ((place >= AT_LIMIT) & (pull > 0)) | ((place <= -AT_LIMIT) & (pull < 0))
        columns = columns.masked_fill(held.unsqueeze(-1), 0)
        damping = (DAMPING_GAIN * error2 + DAMPING_FLOOR).unsqueeze(-1)
        # In double: the matrix's condition is the square of the Jacobian's, up to 1 / DAMPING_FLOOR.
        exact = columns.double()
        rows = torch.cat((exact.mT @ exact + damping * self.diagonal, error.unsqueeze(-1).double()), -1)
        # Gauss and Jordan, without exchanging rows, as the matrix is positive definite: no format exports a solver.
        for k in range(6):
            row, column = rows.narrow(1, k, 1), rows.narrow(2, k, 1) - self.diagonal[:, k : k + 1]
            row = row / row.narrow(2, k, 1).clamp_min(0.1 * DAMPING_FLOOR)  # less by rounding
            rows = rows - column * row
        step = (columns @ rows.narrow(2, 6, 1).to(columns.dtype)).squeeze(-1)
        square = step.square().sum(-1, keepdim=True)
        return step / (1 + square * square)


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


def _motions(kinds: Sequence[str], origins: Tensor) -> tuple[Tensor, Tensor]:
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
            moving[2, joint, joint, :, 3] = link[:, 2]
            continue
        turned[0, 0, 0] = turned[0, 1, 1] = turned[1, 1, 0] = 1.0  # of the cosine, and of the sine
        turned[1, 0, 1] = -1.0
        fixed[joint, :, 2:] = link[:, 2:]
        moving[:2, joint, joint] = link @ turned
    return fixed.flatten(), moving.view(3 * dof, 16 * dof)


def _rotation_vector(parts: Tensor) -> Tensor:
    """Return axis times angle [rad] of rotations, [N, 3]; it jumps at an angle of pi.

    Args:
        parts: Of each rotation the axis times the sine of the angle, and twice its cosine plus 1, [N, 4].
    """
    vector, trace = parts.split((3, 1), -1)
    sine = (vector.square().sum(-1, keepdim=True) + ANGLE_FLOOR).sqrt()
    return vector * (torch.atan2(sine, 0.5 * (trace - 1)) / sine)
