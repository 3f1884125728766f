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
        turn: From the first joint's frame before its motion to F, [N, 4, 4].
        rotation: Of the tool, as a transform without translation, transposed, [N, 4, 4].
        wanted: M* before the last joint turns it back, [N, 4, 4].
        position: Of the tool, [N, 3].
    """

    turn: Tensor
    rotation: Tensor
    wanted: Tensor
    position: Tensor


class _Posed(NamedTuple):
    """Where joints and their target are, in the frame F and with lengths / L.

    Attributes:
        target: The target.
        sines: Cosines, then sines of the joints, and a 1, [N, 2 J + 1].
        joints: Their frames, with the axes as z, each [N, 4, 4]; the last of them is M.
        tool: The tool, [N, 4, 4].
        back: What turns M* back, [N, 4, 4].
    """

    target: Target
    sines: Tensor
    joints: list[Tensor]
    tool: Tensor
    back: Tensor


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

    motions: Tensor
    identity: Tensor
    posing: Tensor
    unposed: Tensor
    pose_pairs: Tensor
    upright: Tensor
    turn: Tensor
    slide: Tensor
    axis_radius: Tensor
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
    only_x: Tensor
    nothing: Tensor
    one: Tensor
    at_limit: Tensor
    order: Tensor
    fields: Tensor
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
                name, torch.tensor(index, device=self.motions.device, dtype=torch.long), persistent=False
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
        parts, _, error2 = self.parts(q, target)
        own, wanted = parts.narrow(1, 3 * len(self.kinds) + 17, 32).split(16, 1)
        return torch.cat((parts, wanted - own), 1).index_select(1, self.order), error2

    def parts(self, q: Tensor, target: Tensor | Target) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what the features are taken from, [N, 4 J + 52], the last J of them the step; the step; and squared
        pose errors, [N, 1].

        The operations are few and large: they are what exported graphs hold.
        """
        if torch.is_autocast_enabled(q.device.type):
            with torch.autocast(q.device.type, enabled=False):
                return self.parts(q, target)
        posed = self._posed(q, target if isinstance(target, Target) else self.prepare(target))
        place, turn, step, error2 = self._stepped(q, posed)
        frames = posed.joints[0], posed.joints[-1], torch.bmm(posed.target.wanted, posed.back)
        first, own, wanted = (frame.view(-1, 16) for frame in frames)
        return torch.cat((place, posed.sines, first, own, wanted, turn, step), -1), step, error2

    def step(self, q: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Return the step alone, [N, J], and squared pose errors, [N, 1]."""
        *_, step, error2 = self._stepped(q, self._posed(q, target))
        return step, error2

    def error2(self, q: Tensor, target: Target) -> Tensor:
        """Return the squared pose errors alone, [N, 1]."""
        error, *_ = self._error(self._posed(q, target))
        return _sum_of_squares(error)

    def errors(self, q: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Return how far the tool is from its target, [m] and [rad], both [N]."""
        position, turn = self._error(self._posed(q, target))[0].split((3, 3), -1)
        return _sum_of_squares(position).view(-1).sqrt() / self.per_length, _sum_of_squares(turn).view(-1).sqrt()

    def angle(self, sine: Tensor, cosine: Tensor) -> Tensor:
        """Return the angles between 0 and pi [rad], [N, 1], of sines and cosines."""
        return torch.atan2(sine, cosine)

    def _posed(self, q: Tensor, target: Target) -> _Posed:
        """Return where joints and targets are in F."""
        if self.kinds[-1] == "prismatic":
            back = (self.identity + q[:, -1:] * self.slide).view(-1, 4, 4)
            wanted = target.wanted @ back
            position = nn.functional.pad(target.position, (0, 1)).unsqueeze(-1)
            target = self._faced(torch.cat((target.rotation.mT, wanted, position), -1), wanted[:, :2, 3])
        sines = self.sines(q)
        moved = torch.cat((sines, q), -1) if "prismatic" in self.kinds else sines
        size = len(self.kinds) + 2
        *links, last, tool, back = torch.mm(moved, self.motions).view(-1, 4 * size, 4).split((4,) * size, 1)
        joints: list[Tensor] = []
        for link in links:
            joints.append(torch.bmm(joints[-1] if joints else target.turn, link))
        before = joints[-1] if joints else target.turn
        return _Posed(target, sines, [*joints, torch.bmm(before, last)], torch.bmm(before, tool), back)

    def prepare(self, target_pose: Tensor) -> Target:
        """Return what `reference` takes of target poses [N, 7]."""
        one, other = torch.mm(target_pose, self.pose_pairs).split((10, 10), -1)
        posed = torch.cat((self.quadratic(one * other), target_pose), -1)
        frames, xy = add_product(self.unposed, posed, self.posing).split((36, 2), -1)
        frames = frames.view(-1, 4, 9)
        if self.kinds[-1] != "prismatic":  # else the azimuth depends on the joints
            return self._faced(frames, xy)
        return self._unfaced(frames)

    def sines(self, q: Tensor) -> Tensor:
        """Return cosines, then sines of the joints, and a 1, [N, 2 J + 1]."""
        return torch.cat((q.cos(), q.sin(), torch.ones_like(q[:, :1])), -1)

    def transposed(self, x: Tensor) -> Tensor:
        """Return matrices, [N, n, m], transposed."""
        return x.transpose(1, 2)

    def quadratic(self, products: Tensor) -> Tensor:
        """Return the products of the components of unit quaternions of products of theirs, [N, 10]."""
        return products

    def _faced(self, frames: Tensor, xy: Tensor) -> Target:
        """Return a target turned about the first joint's axis, so that M* is at azimuth 0.

        Args:
            frames: Of the target: its rotation as a transform, M*, and its position with any fourth number, [N, 4, 9].
            xy: M*'s position beside that axis, [N, 2].
        """
        if self.kinds[0] == "prismatic" or len(self.kinds) == 1:
            return self._unfaced(frames)
        length = torch.linalg.vector_norm(xy, dim=-1, keepdim=True)
        on_axis = length < self.axis_radius
        along = torch.where(on_axis, self.only_x, xy / torch.maximum(length, self.axis_radius))
        turn = add_product(self.upright, along, self.turn).view(-1, 4, 4)
        return self._target(turn, torch.bmm(turn, frames))

    def _unfaced(self, frames: Tensor) -> Target:
        """Return a target in the first joint's frame before its motion."""
        return self._target(self.identity.view(4, 4) + 0 * frames.narrow(2, 0, 4), frames)

    def _target(self, turn: Tensor, frames: Tensor) -> Target:
        """Return a target of its frames in F, [N, 4, 9]; see `_faced`."""
        rotation, wanted, position = frames.view(-1, 36).index_select(1, self.fields).split((16, 16, 3), -1)
        return Target(turn, rotation.view(-1, 4, 4), wanted.view(-1, 4, 4), position)

    def _error(self, posed: _Posed) -> tuple[Tensor, Tensor, Tensor]:
        """Return pose errors, position / L and rotation vector [rad], [N, 6]; rotation vectors, [N, 3], which jump at
        an angle of pi; and what makes columns of the Jacobian, [N, 6 P]."""
        compared = torch.mm(torch.bmm(posed.tool, posed.target.rotation).view(-1, 16), self.difference)
        sine_axis, floored, cosine, tip, column = compared.split((3, 4, 1, 3, 6 * self.num_products), -1)
        sine = torch.linalg.vector_norm(floored, dim=-1, keepdim=True)
        turn = sine_axis * (self.angle(sine, cosine) / sine)
        return torch.cat((posed.target.position - tip, turn), -1), turn, column

    def _stepped(self, q: Tensor, posed: _Posed) -> tuple[Tensor, ...]:
        """Return places of the joints within their limits, [N, J], rotation vectors [rad], [N, 3], steps, [N, J], and
        squared pose errors, [N, 1]."""
        error, turn, column = self._error(posed)
        error2 = _sum_of_squares(error)
        place = torch.addcmul(self.origin, q, self.per_range)
        frames = torch.cat(posed.joints, 1).view(-1, 16)
        step = self._step(place, self._columns(frames, column), error, error2)
        return place, turn, step, error2

    def _columns(self, joints: Tensor, column: Tensor) -> Tensor:
        """Return the joints' columns of the Jacobian, [N, J, 6], from their frames, [N J, 16], and what makes them."""
        one, other = torch.mm(joints, self.pairs).split((self.num_products,) * 2, -1)
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
        y = self._solve(torch.baddbmm(damping, self.transposed(exact), exact), error)
        step = _as(columns.dtype, torch.bmm(exact, y).view(-1, len(self.kinds)))
        square = _sum_of_squares(step)
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


def _sum_of_squares(x: Tensor) -> Tensor:
    """Return the sums of the squares of rows, [N, 1]; `square` takes longer in graphs."""
    return (x * x).sum(-1, keepdim=True)


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
