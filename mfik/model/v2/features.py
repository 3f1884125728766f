"""What the network of type v2 is told of a state and its target: the robot's own geometry.

Invariant under the two symmetries of a serial chain: turning the target about the first joint's axis together with that
joint, and about the last joint's axis together with that one. Only the joints' places within their limits tell such
states apart. csrc/kernels/geometry.hpp computes the same, and its gradient, in C++.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mfik import ops
from mfik.kinematics import quat_to_matrix
from mfik.robots import Robot

# These five also stand in csrc/kernels/geometry.hpp.
DAMPING_GAIN = 0.02  # damping of the step by squared pose error, with lengths in halves of the arm's
DAMPING_FLOOR = 1e-5  # its least value
AT_LIMIT = 1 - 1e-5  # of half a joint's range from its midpoint: there it is at its limit
AXIS_FLOOR = 1e-6  # [m^2]: keeps the azimuth of a target on the first joint's axis finite
ANGLE_FLOOR = 1e-12  # keeps the axis of a vanishing rotation error finite


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
      solution (Sugihara 2011), and scaled by `1 / (1 + |d|^4)`, as a long step tells little. Joints that are at a limit
      which the error pulls them beyond stay there, and the others make up for them (Bertsekas 1982, projected Newton)

    e^2 is |position error / L|^2 + |rotation vector|^2 of the tool, [1]. All are smooth but for a rotation vector of
    length pi.

    Args:
        robot: The robot.

    Attributes:
        size: Number of features.
        constants: What the native kernels take of the robot.
    """

    def __init__(self, robot: Robot) -> None:
        super().__init__()
        self.kinds = robot.kinds
        origins, (lower, upper) = robot.chain.transforms(), robot.limits()
        turns, limited = (  # on the CPU whatever the default device: a loader builds networks on "meta"
            torch.tensor([kind != other for kind in self.kinds], device=origins.device, dtype=origins.dtype)
            for other in ("prismatic", "continuous")
        )
        turning = [joint for joint, kind in enumerate(self.kinds[:-1]) if kind != "prismatic"]
        self.scale = 2.0 / float(torch.linalg.vector_norm(origins[..., 3], dim=-1).sum())  # 1 / L
        constants = {
            "origins": origins,
            "midpoint": 0.5 * (lower + upper),
            "per_range": limited * 2.0 / (upper - lower),
            "turns": turns.unsqueeze(-1),  # [J, 1]
        }
        for name, value in constants.items():  # they follow from the robot, which every file describes
            self.register_buffer(name, value.float(), persistent=False)
        # On the device: a list as an index would be copied there anew in every call.
        self.register_buffer(
            "turning", torch.tensor(turning, device=origins.device, dtype=torch.long), persistent=False
        )
        self.size = 2 * len(self.kinds) + 2 * len(turning) + 30
        self.constants = ops.GeometryRobot.of(robot, self.size)

    def forward(self, q: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features: by native kernels where they run, else, in forward mode and in graphs that are traced,
        by `reference`.

        Args:
            q: Joints [rad or m], [N, J].
            target_pose: T_base_tool [m], unit quaternion of either sign, [N, 7].

        Returns:
            Features [N, size], the last J of which are the step [rad or m], and squared pose errors, [N, 1].
        """
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if traced or not ops.has_geometry(q) or is_dual(q) or is_dual(target_pose):
            return self.reference(q, target_pose)
        return _Fused.apply(q, target_pose, self)

    def reference(self, q: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `forward` does in plain tensor operations without matrix products, which autocast leaves alone.

        They are what exported graphs hold, and what derivatives of higher order go through.
        """
        sin, cos = q.sin(), q.cos()
        rotation, position, axes, points, last = self._frames(q, sin, cos)
        target, target_position = quat_to_matrix(target_pose[:, 3:]), target_pose[:, :3]
        tool_error = self.scale * (target_position - position)
        turn = _rotation_vector(_product(target, rotation.mT))
        error = torch.cat((tool_error, turn), -1)
        error2 = error.square().sum(-1, keepdim=True)
        place = (q - self.midpoint) * self.per_range
        step = self._step(place, axes, points, position, error, DAMPING_GAIN * error2 + DAMPING_FLOOR)

        # M* = target * tool^-1 * (motion of the last joint)^-1
        wanted = _product(target, self.origins[-1, :, :3].T)
        wanted_position = target_position - _apply(wanted, self.origins[-1, :, 3])
        if self.kinds[-1] == "prismatic":
            wanted_position = wanted_position - q[:, -1:] * wanted[..., 2]
        else:
            wanted = _turn_z(wanted, cos[:, -1:], -sin[:, -1:])
        base = self.origins[0]
        from_joint1 = wanted_position - base[:, 3]
        frame = base[:, :3].T.expand(q.shape[0], 3, 3)
        if self.kinds[0] != "prismatic":
            x, y, _ = _apply(frame, from_joint1).unbind(-1)
            radius = (x * x + y * y + AXIS_FLOOR).sqrt()
            c, s = (x / radius).unsqueeze(-1), (y / radius).unsqueeze(-1)
            frame = _turn_z(frame.mT, c, s).mT
            first_sin, first_cos = sin[:, :1] * c - cos[:, :1] * s, cos[:, :1] * c + sin[:, :1] * s
            sin, cos = torch.cat((first_sin, sin[:, 1:]), -1), torch.cat((first_cos, cos[:, 1:]), -1)
        features = (
            place,
            sin.index_select(1, self.turning),
            cos.index_select(1, self.turning),
            self.scale * _apply(frame, from_joint1),
            _product(frame, wanted).flatten(1),
            self.scale * _apply(frame, points[:, -1] - base[:, 3]),
            _product(frame, last).flatten(1),
            self.scale * _apply(frame, wanted_position - points[:, -1]),
            _apply(frame, turn),
            step,
        )
        return torch.cat(features, dim=-1), error2

    def _frames(self, q: Tensor, sin: Tensor, cos: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Compute the frames of the chain.

        Returns:
            The tool's rotation [N, 3, 3] and position [N, 3], the joints' axes and points, [N, J, 3] each, and the
            rotation of the last joint's frame before its motion, [N, 3, 3].
        """
        rotation = self.origins[0, :, :3].expand(q.shape[0], 3, 3)
        position = self.origins[0, :, 3].expand(q.shape[0], 3)
        last, axes, points = rotation, [], []
        for joint, kind in enumerate(self.kinds):
            if joint > 0:
                position = position + _apply(rotation, self.origins[joint, :, 3])
                rotation = _product(rotation, self.origins[joint, :, :3])
            last = rotation
            axes.append(rotation[..., 2])
            points.append(position)
            if kind == "prismatic":
                position = position + q[:, joint, None] * rotation[..., 2]
            else:
                rotation = _turn_z(rotation, cos[:, joint, None], sin[:, joint, None])
        position = position + _apply(rotation, self.origins[-1, :, 3])
        rotation = _product(rotation, self.origins[-1, :, :3])
        return rotation, position, torch.stack(axes, dim=1), torch.stack(points, dim=1), last

    def _step(
        self, place: Tensor, axes: Tensor, points: Tensor, position: Tensor, error: Tensor, damping: Tensor
    ) -> Tensor:
        """Return J^T (J J^T + damping I)^-1 error, scaled; error [N, 6] with lengths / L, damping [N, 1]."""
        linear = self.turns * torch.linalg.cross(axes, position.unsqueeze(1) - points) + (1 - self.turns) * axes
        columns = torch.cat((self.scale * linear, self.turns * axes), dim=-1)
        pull = (columns * error.unsqueeze(1)).sum(-1)
        held = ((place >= AT_LIMIT) & (pull > 0)) | ((place <= -AT_LIMIT) & (pull < 0))
        rows = columns.masked_fill(held.unsqueeze(-1), 0).unbind(-1)  # of J: six [N, J]
        gram = [[(rows[a] * rows[b]).sum(-1) for b in range(a + 1)] for a in range(6)]
        # Cholesky's factor, element by element: no format exports a solver.
        factor: list[list[Tensor]] = [[] for _ in range(6)]
        inverse: list[Tensor] = []  # of its diagonal
        for a in range(6):
            for b in range(a + 1):
                rest = gram[a][b]
                for k in range(b):
                    rest = rest - factor[a][k] * factor[b][k]
                if a == b:
                    # Rounding of float32 may leave less than the damping.
                    inverse.append((rest + damping.squeeze(-1)).clamp_min(0.1 * DAMPING_FLOOR).rsqrt())
                else:
                    factor[a].append(rest * inverse[b])
        solution = list(error.unbind(-1))
        for a in range(6):
            for k in range(a):
                solution[a] = solution[a] - factor[a][k] * solution[k]
            solution[a] = solution[a] * inverse[a]
        for a in reversed(range(6)):
            for k in range(a + 1, 6):
                solution[a] = solution[a] - factor[k][a] * solution[k]
            solution[a] = solution[a] * inverse[a]
        step = sum(row * value.unsqueeze(-1) for row, value in zip(rows, solution, strict=True))
        square = step.square().sum(-1, keepdim=True)
        return step / (1 + square * square)


def is_dual(value: Tensor) -> bool:
    """Tell whether a value carries a forward-mode tangent."""
    return forward_ad.unpack_dual(value).tangent is not None


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
            _, pull_back = torch.func.vjp(ctx.module.reference, q, target_pose)
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


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return matrix [..., 3, 3] times vector [..., 3]."""
    return (matrix * vector.unsqueeze(-2)).sum(-1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return left [..., 3, 3] times right [..., 3, 3]."""
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)


def _turn_z(rotation: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return rotation [N, 3, 3] times a turn about z by the angle whose cosine and sine are given, [N, 1] each."""
    x, y, z = rotation.unbind(-1)
    return torch.stack((cos * x + sin * y, cos * y - sin * x, z), dim=-1)


def _rotation_vector(matrix: Tensor) -> Tensor:
    """Return axis times angle [rad] of rotations [N, 3, 3], [N, 3]; it jumps at an angle of pi."""
    m = matrix
    twice = torch.stack((m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]), dim=-1)
    vector = 0.5 * twice
    sine = (vector.square().sum(-1, keepdim=True) + ANGLE_FLOOR).sqrt()
    cosine = 0.5 * (m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2] - 1).unsqueeze(-1)
    return vector * (torch.atan2(sine, cosine) / sine)
