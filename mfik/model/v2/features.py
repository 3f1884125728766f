"""What the network of type v2 is told of a state and its target: the robot's own geometry.

Invariant under the two symmetries of a serial chain: turning the target about the first joint's axis together with that
joint, and about the last joint's axis together with that one. Only the joints' places within their limits tell such
states apart. csrc/kernels/geometry.hpp computes the same, and its gradient, in C++.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mfik import ops
from mfik.model.v2.constants import indices, matrices, number_of_products
from mfik.robots import Robot


class Target(NamedTuple):
    """What `Geometry.reference` takes of target poses, in the frame F and with lengths / L.

    Attributes:
        azimuth: Of F, from the first joint's frame before its motion, as what is taken from each joint, [N, J].
        position: Of the tool, [N, 3].
        rotation: Of the tool, as a transform without translation, transposed, [N, 4, 4].
        wanted: M* before the last joint turns it back, [N, 4, 4].
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
        dtype: In which `reference` holds its constants.

    Attributes:
        size: Number of features.
        constants: What the native kernels take of the robot.
    """

    fixed: Tensor
    moving: Tensor
    identity: Tensor
    posing: Tensor
    unposed: Tensor
    pose_pairs: Tensor
    upright: Tensor
    turn: Tensor
    slide: Tensor
    axis_radius2: Tensor
    origin: Tensor
    per_range: Tensor
    difference: Tensor
    pairs: Tensor
    motion: Tensor
    damping: Tensor
    least_damping: Tensor
    cofactor: Tensor
    third: Tensor
    per_length: Tensor
    only_first: Tensor
    only_x: Tensor
    nothing: Tensor
    one: Tensor
    at_limit: Tensor
    order: Tensor
    blocks: Tensor
    schur: Tensor

    def __init__(self, robot: Robot, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.kinds = robot.kinds
        self.num_products = number_of_products(robot)
        for name, value in matrices(robot).items():  # they follow from what every file describes
            self.register_buffer(name, value.to(dtype), persistent=False)
        # On the device: a list as an index would be copied there anew in every call.
        for name, index in indices(robot).items():
            self.register_buffer(
                name, torch.tensor(index, device=self.fixed.device, dtype=torch.long), persistent=False
            )
        self.size = len(self.order)
        self.constants = ops.GeometryRobot.of(robot, self.size)

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
        wanted, own = parts.narrow(1, 3 * len(self.kinds), 32).split(16, 1)
        return torch.cat((parts, wanted - own), 1).index_select(1, self.order), error2

    def parts(self, q: Tensor, target: Tensor | Target) -> tuple[Tensor, Tensor]:
        """Compute what the features are taken from, [N, 4 J + 35], the last J of them the step, and squared errors.

        The operations are few and large: they are what exported graphs hold.
        """
        if torch.is_autocast_enabled(q.device.type):
            with torch.autocast(q.device.type, enabled=False):
                return self.parts(q, target)
        if not isinstance(target, Target):
            target = self.prepare(target)
        target, (sin, cos), joints, back, tool = self._posed(q, target)
        own, wanted = joints[-1].view(-1, 16), torch.bmm(target.wanted, back).view(-1, 16)
        turn, tip, column = self._difference(target.rotation, tool)
        error = torch.cat((target.position - tip, turn), -1)
        error2 = error.square().sum(-1, keepdim=True)
        place = torch.addcmul(self.origin, q, self.per_range)
        columns = self._columns(torch.cat(joints, 1).view(-1, 16), column)
        step = self._step(place, columns, error, error2)
        return torch.cat((place, sin, cos, wanted, own, turn, step), -1), error2

    def error2(self, q: Tensor, target: Target) -> Tensor:
        """Return the squared pose errors alone, [N, 1]."""
        target, _, _, _, tool = self._posed(q, target)
        turn, tip, _ = self._difference(target.rotation, tool)
        return torch.cat((target.position - tip, turn), -1).square().sum(-1, keepdim=True)

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
        """Return the target in F, sines and cosines of the joints, [N, J], and as [N, 4, 4] frames with the joints'
        axes as z, the last of them M, what turns M* back, and the tool."""
        if self.kinds[-1] == "prismatic":
            back = (self.identity + q[:, -1:] * self.slide).view(-1, 4, 4)
            target = self._faced(target._replace(wanted=target.wanted @ back))
        turned = q - target.azimuth
        sin, cos = turned.sin(), turned.cos()
        motions = add_product(self.fixed, torch.cat((cos, sin, q), -1), self.moving)
        *links, last, tool, back = motions.view(-1, 4 * (len(self.kinds) + 2), 4).split(4, 1)
        joints = links[:1]
        for link in links[1:]:
            joints.append(torch.bmm(joints[-1], link))
        if not joints:  # one joint
            return target, (sin, cos), [last], back, tool
        return target, (sin, cos), [*joints, torch.bmm(joints[-1], last)], back, torch.bmm(joints[-1], tool)

    def prepare(self, target_pose: Tensor) -> Target:
        """Return what `reference` takes of target poses [N, 7]."""
        one, other = torch.mm(target_pose, self.pose_pairs).split(10, -1)
        posed = add_product(self.unposed, torch.cat((one * other, target_pose), -1), self.posing)
        rotation, wanted, position = posed.split((16, 16, 3), -1)
        target = Target(0 * position[:, :1] * self.only_first, position, rotation.view(-1, 4, 4), wanted.view(-1, 4, 4))
        return target if self.kinds[-1] == "prismatic" else self._faced(target)  # then it depends on the joints

    def _faced(self, target: Target) -> Target:
        """Return a target turned about the first joint's axis, so that M* is at azimuth 0."""
        if self.kinds[0] == "prismatic" or len(self.kinds) == 1:
            return target
        xy = target.wanted[:, :2, 3]
        on_axis = xy.square().sum(-1, keepdim=True) < self.axis_radius2
        xy = torch.where(on_axis, self.only_x, xy)
        along = xy / torch.linalg.vector_norm(xy, dim=-1, keepdim=True)
        turn = add_product(self.upright, along, self.turn).view(-1, 4, 4)
        x, y = xy.split(1, -1)
        position = torch.bmm(turn[:, :3, :3], target.position.unsqueeze(-1)).squeeze(-1)
        rotation, wanted = torch.bmm(target.rotation, turn.mT), torch.bmm(turn, target.wanted)
        return Target(torch.atan2(y, x) * self.only_first, position, rotation, wanted)

    def _compared(self, rotation: Tensor, tool: Tensor) -> tuple[Tensor, ...]:
        """Return what `difference` makes of `Target.rotation` and a tool, both [N, 4, 4]: axis times sine of the
        angle between them, [N, 3], the same and a floor, [N, 4], cosine, [N, 1], the tool's position, [N, 3], and what
        makes columns of the Jacobian, [N, 6 P]."""
        compared = torch.mm(torch.bmm(tool, rotation).view(-1, 16), self.difference)
        return compared.split((3, 4, 1, 3, 6 * self.num_products), -1)

    def _difference(self, rotation: Tensor, tool: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotation vectors [rad], [N, 3], which jump at an angle of pi; the rest as of `_compared`."""
        sine_axis, floored, cosine, tip, column = self._compared(rotation, tool)
        sine = torch.linalg.vector_norm(floored, dim=-1, keepdim=True)
        return sine_axis * (self.angle(sine, cosine) / sine), tip, column

    def _columns(self, joints: Tensor, column: Tensor) -> Tensor:
        """Return the joints' columns of the Jacobian, [N, J, 6], from their frames, [N J, 16], and what makes them."""
        one, other = torch.mm(joints, self.pairs).split(self.num_products, -1)
        products = (one * other).view(-1, len(self.kinds), self.num_products)
        if "prismatic" in self.kinds:
            products = products * self.motion
        return torch.bmm(products, column.reshape(-1, self.num_products, 6))

    def _step(self, place: Tensor, columns: Tensor, error: Tensor, error2: Tensor) -> Tensor:
        """Return J^T (J J^T + damping I)^-1 error, scaled.

        Args:
            place: Of the joints within their limits, [N, J].
            columns: Of J, [N, J, 6].
            error: Pose error with lengths / L, [N, 6].
            error2: Its square, [N, 1].
        """
        pull = torch.bmm(columns, error.unsqueeze(-1))
        free = place.unsqueeze(-1) * pull.sign() < self.at_limit
        # In double: the matrix's condition is the square of the Jacobian's, up to 1 / DAMPING_FLOOR.
        damping = torch.addcmul(self.least_damping, error2, self.damping).view(-1, 6, 6)
        columns = torch.where(free, columns, self.nothing)
        exact, damping, error = (_as(torch.float64, x) for x in (columns, damping, error))
        y = self._solve(torch.baddbmm(damping, exact.mT, exact), error)
        step = _as(columns.dtype, torch.bmm(exact, y).view(-1, len(self.kinds)))
        square = step.square().sum(-1, keepdim=True)
        return step / torch.addcmul(self.one, square, square)

    def _solve(self, matrix: Tensor, wanted: Tensor) -> Tensor:
        """Return x, [N, 6, 1], which symmetric, positive definite matrices, [N, 6, 6], make what is wanted, [N, 6], by
        blocks of three: ONNX has no solver."""
        parts = torch.cat((matrix.view(-1, 36), wanted), 1).index_select(1, self.blocks)
        one, other, upper, beside, right, below = parts.split((18, 18, 9, 9, 12, 12), 1)
        solved = torch.bmm(self._inverse(one, other, upper), right.view(-1, 3, 4))
        below = below - torch.bmm(beside.view(-1, 3, 3), solved).view(-1, 12)
        one, other, schur, second = below.index_select(1, self.schur).split((18, 18, 9, 3), 1)
        second = torch.bmm(self._inverse(one, other, schur), second.unsqueeze(-1))
        eliminated, first = solved.split((3, 1), -1)
        return torch.cat((first - torch.bmm(eliminated, second), second), 1)

    def _inverse(self, one: Tensor, other: Tensor, matrix: Tensor) -> Tensor:
        """Return the inverses, [N, 3, 3], of symmetric matrices, [N, 9], by their cofactors, which are differences of
        products, [N, 18]."""
        cofactors = (one * other) @ _as(one.dtype, self.cofactor)
        determinant = (matrix * cofactors) @ _as(one.dtype, self.third)
        return (cofactors / determinant).view(-1, 3, 3)


def add_product(bias: Tensor, x: Tensor, half: Tensor) -> Tensor:
    """Return bias + x @ (2 half): one operation, which TorchScript takes apart into two where its factor is 1."""
    return torch.addmm(bias, x, half, alpha=2)


def _as(dtype: torch.dtype, value: Tensor) -> Tensor:
    """Return `value.to(dtype)`, which a traced graph would hold where it changes nothing."""
    return value if value.dtype == dtype else value.to(dtype)


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
