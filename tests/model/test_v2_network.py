"""The network of type v2: size, features, tangents, and what it does untrained."""

import math

import pytest
import torch

from mfik.errors import ArgumentError
from mfik.kinematics import pose_error, quat_to_matrix
from mfik.model import SingleStep, build_network, make_network
from mfik.model.v2 import Geometry, MeanFlowNet, ModelConfig
from mfik.model.v2.network import NEAR2, _BoundedGradient, _Limited
from mfik.robots import load_robot
from mfik.train.v1.loss import total_derivative

SIZES_M = {"default": 17.84, "medium": 4.14, "small": 1.05, "mini": 0.235, "tiny": 0.1075, "nano": 0.0292}


def random_net(robot, width=32, dtype=torch.float64, passes=2, starts=1):
    """A network whose head is not zero, so that every layer matters."""
    torch.manual_seed(0)
    model = MeanFlowNet(ModelConfig(robot.dof, width, 2, passes, passes, starts), robot).to(dtype)
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return model.eval()


def inputs(robot, n, rng, dtype=torch.float64):
    q, other = robot.sample(n, rng, dtype), robot.sample(n, rng, dtype)
    r = 0.5 * torch.rand(n, 1, generator=rng, dtype=dtype)
    return q, robot.fk(other), r, r + 0.4


@pytest.mark.parametrize(("size", "millions"), SIZES_M.items())
def test_presets_have_their_sizes(panda, size, millions):
    assert make_network("v2", size, panda).num_parameters() / 1e6 == pytest.approx(millions, rel=5e-3)


def test_a_network_for_other_joints_is_refused(panda):
    with pytest.raises(ArgumentError, match="config.dof: expected 7 joints of 'panda', got 6"):
        MeanFlowNet(ModelConfig(dof=6, width=8, num_blocks=1), panda)
    with pytest.raises(ArgumentError, match=r"model.dof: expected 6 \(the robot's joints\), got 7"):
        build_network(ModelConfig(dof=7, width=8, num_blocks=1).to_dict(), load_robot("ur10"))


@pytest.mark.parametrize("field", ["dof", "width", "num_blocks", "passes", "training_passes", "starts"])
def test_bad_configuration_names_the_field(field):
    for value in (0, -1, 1.5, "8", None):
        with pytest.raises(ArgumentError, match=field):
            ModelConfig(**{field: value})


def test_configuration_survives_the_round_trip_and_refuses_strangers():
    config = ModelConfig.preset(8, "small")
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ArgumentError, match="v1"):
        ModelConfig.from_dict({**config.to_dict(), "type": "v1"})
    with pytest.raises(ArgumentError, match="depth"):
        ModelConfig.from_dict({**config.to_dict(), "depth": 3})
    with pytest.raises(ArgumentError, match="nano"):
        ModelConfig.preset(7, "huge")


def test_both_signs_of_the_quaternion_are_one_rotation(any_robot, rng):
    model = random_net(any_robot)
    q, pose, r, t = inputs(any_robot, 9, rng)
    flipped = torch.cat((pose[:, :3], -pose[:, 3:]), dim=-1)
    assert torch.equal(model(q, pose, r, t), model(q, flipped, r, t))


@pytest.mark.parametrize("n", [0, 1, 33])
def test_rows_are_independent_and_any_batch_size_works(any_robot, n, rng):
    model = random_net(any_robot)
    q, pose, r, t = inputs(any_robot, n, rng)
    u = model(q, pose, r, t)
    assert u.shape == (n, any_robot.dof)
    rows = [model(q[i : i + 1], pose[i : i + 1], r[i : i + 1], t[i : i + 1]) for i in range(n)]
    if n:
        torch.testing.assert_close(u, torch.cat(rows), rtol=1e-10, atol=1e-12)


def test_tangents_match_jvp_and_finite_differences(any_robot, rng):
    model = random_net(any_robot)
    q, pose, r, t = inputs(any_robot, 17, rng)
    v = torch.randn(q.shape, generator=rng, dtype=torch.float64)
    u, derivative = total_derivative(model, q, pose, r, t, v)
    u_jvp, jvp = torch.func.jvp(lambda q, r: model(q, pose, r, t), (q, r), (v, torch.ones_like(r)))
    torch.testing.assert_close(u, u_jvp, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(derivative, jvp, rtol=1e-9, atol=1e-10)
    h = 1e-6
    plus, minus = (model(q + s * h * v, pose, r + s * h, t) for s in (1, -1))
    assert derivative.norm() > 0.1  # a silent zero tangent would pass a relative test
    torch.testing.assert_close(derivative, (plus - minus) / (2 * h), rtol=1e-5, atol=1e-5)


def quat_product(a, b):
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )


def turn_about(axis, point, angle, pose):
    """Turn poses [N, 7] about an axis through a point, [3] or [N, 3] each, by an angle [rad]."""
    quat = torch.cat((torch.cos(angle / 2), torch.sin(angle / 2) * axis.expand(len(pose), 3)), -1)
    arm, u = pose[:, :3] - point, quat[:, 1:]
    cross = torch.linalg.cross(u, arm)
    turned = arm + 2 * (quat[:, :1] * cross + torch.linalg.cross(u, cross))
    return torch.cat((turned + point, quat_product(quat, pose[:, 3:])), -1)


def without_places(geometry, features):
    """All features but the joints' places within their limits."""
    return features[:, len(geometry.kinds) :]


@pytest.mark.parametrize("end", ["first", "last"])
def test_turning_target_and_end_joint_together_changes_no_feature(any_robot, end, rng):
    robot = any_robot
    joint = 0 if end == "first" else -1
    if robot.kinds[joint] == "prismatic":
        return  # it slides: no such symmetry
    geometry = Geometry(robot).double()
    q, pose, _, _ = inputs(robot, 50, rng)
    angle = 2 * torch.rand(50, 1, generator=rng, dtype=torch.float64) - 1
    moved = q.clone()
    moved[:, joint] += angle[:, 0]
    if end == "first":
        base = robot.chain.transforms()[0]
        turned = turn_about(base[:, 2], base[:, 3], angle, pose)
    else:
        # The target turns about the last joint's axis as the target has it: target * tool^-1 * Rz(angle) * tool.
        tool = robot.chain.transforms()[-1]
        frame = quat_to_matrix(pose[:, 3:]) @ tool[:, :3].T
        turned = turn_about(frame[..., 2], pose[:, :3] - (frame @ tool[:, 3:]).squeeze(-1), angle, pose)
    lower, upper = robot.limits()
    rows = ((moved > lower) & (moved < upper) | torch.tensor([kind == "continuous" for kind in robot.kinds])).all(-1)
    assert rows.sum() > 20, "beyond a limit a joint is held"
    q, pose, moved, turned = (x[rows] for x in (q, pose, moved, turned))
    before, after = (without_places(geometry, geometry(*x)[0]) for x in ((q, pose), (moved, turned)))
    assert (geometry(moved, pose)[0] - geometry(q, pose)[0]).abs().max() > 0.1  # each alone changes them
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)  # AXIS_FLOOR: 1e-6 m^2 beside the radius


def test_an_untrained_network_takes_damped_steps(any_robot, rng):
    robot = any_robot
    q = robot.sample(200, rng, torch.float64)
    lower, upper = robot.limits()
    span = (upper - lower).clamp_max(math.pi)
    q_ref = robot.clamp(q + 0.01 * span * (2 * torch.rand(q.shape, generator=rng, dtype=torch.float64) - 1))
    pose = robot.fk(q)

    def errors(passes):
        model = MeanFlowNet(ModelConfig(robot.dof, width=8, num_blocks=1, passes=passes), robot).double().eval()
        with torch.no_grad():
            return pose_error(pose, robot.fk(SingleStep(model)(q_ref, pose))).norm(dim=-1)

    before, once, twice = pose_error(pose, robot.fk(q_ref)).norm(dim=-1), errors(1), errors(2)
    assert (once < 0.5 * before).double().mean() > 0.9
    assert once.median() < 0.1 * before.median() and twice.median() < 0.02 * once.median()  # nearly Newton's


@pytest.mark.parametrize("implementation", ["forward", "reference"])
def test_joints_that_are_pulled_beyond_a_limit_are_left_out_of_the_step(any_robot, implementation, rng):
    """The step against damped least squares on the Jacobian of the joints that are left."""
    robot, (lower, upper) = any_robot, any_robot.limits()
    geometry = Geometry(robot).double()
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    q = robot.sample(500, rng, torch.float64)
    side = torch.randint(3, q.shape, generator=rng)
    q = torch.where(limited & (side == 0), lower, torch.where(limited & (side == 1), upper, q))
    pose = robot.fk(robot.sample(500, rng, torch.float64))
    features, error2 = getattr(geometry, implementation)(q, pose)
    weight = torch.tensor([geometry.per_length] * 3 + [1.0] * 3, dtype=q.dtype)
    error, jacobian = weight * pose_error(robot.fk(q), pose), weight.unsqueeze(-1) * robot.jacobian(q)
    pull = (jacobian.mT @ error.unsqueeze(-1)).squeeze(-1)
    held = ((q == upper) & (pull > 0)) | ((q == lower) & (pull < 0))
    jacobian[held.unsqueeze(1).expand_as(jacobian)] = 0
    gram = jacobian @ jacobian.mT + (0.02 * error2 + 1e-5).unsqueeze(-1) * torch.eye(6, dtype=q.dtype)
    step = (jacobian.mT @ torch.linalg.solve(gram, error).unsqueeze(-1)).squeeze(-1)
    step = step / (1 + step.square().sum(-1, keepdim=True).square())
    assert held.double().mean() > 0.1 and ((q == upper) & ~held).any(), "both kinds are there"
    torch.testing.assert_close(features[:, -robot.dof :], step, rtol=1e-5, atol=1e-7)
    assert (features[:, -robot.dof :][held] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_a_solution_stays_where_it_is(any_robot, size, dtype, rng):
    """u = 0 for every r and t, whatever the weights."""
    robot = any_robot
    model = make_network("v2", size, robot).to(dtype).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    lower, upper = robot.limits()
    q = robot.sample(1000, rng, torch.float64).clamp(lower + 1e-3, upper - 1e-3)
    pose = robot.fk(q).to(dtype)
    r = 0.9 * torch.rand(1000, 1, generator=rng).to(dtype)
    moved = (1 - r) * model(q.to(dtype), pose, r, r + 0.1)
    # Rounding of the pose, through a step whose damping is 1e-5: at most 1 / (2 sqrt(1e-5)) = 158 times as much.
    eps = torch.finfo(dtype).eps
    assert moved.norm(dim=-1).median() < 20 * eps and moved.norm(dim=-1).max() < 2000 * eps


def test_answers_lie_within_the_limits(any_robot, rng):
    robot = any_robot
    model = random_net(robot, dtype=torch.float32)
    torch.nn.init.normal_(model.head.weight, std=3.0)
    q, pose, _, _ = inputs(robot, 5000, rng, torch.float32)
    q = torch.cat((q, robot.clamp(2 * q)))  # also references on the limits
    with torch.no_grad():
        answer = SingleStep(model)(q, torch.cat((pose, pose))).double()
    lower, upper = robot.limits()
    assert (answer >= lower).all() and (answer <= upper).all()
    near = (answer - lower).abs().minimum((answer - upper).abs()) < 1e-5
    assert near.double().mean() > 0.1, "few answers would have left the limits: a test of nothing"


def test_between_looks_no_row_drowns_the_others_in_training():
    """A row's gradient is bounded by four times the median; one that is not finite is none."""
    q = torch.zeros(5, 2, requires_grad=True)
    _BoundedGradient.apply(q).backward(torch.tensor([[1.0, 0], [0, 2], [3, 0], [3000, 4000], [torch.nan, 1]]))
    torch.testing.assert_close(q.grad, torch.tensor([[1.0, 0], [0, 2], [3, 0], [7.2, 9.6], [0, 0]]))


def test_a_joint_beyond_a_limit_learns_what_leads_back_and_nothing_else():
    lower, upper = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, torch.inf])
    q = torch.tensor([[2.0, 5.0], [2.0, 5.0], [-2.0, -2.0], [-2.0, -2.0], [0.5, 0.5]], requires_grad=True)
    limited = _Limited.apply(q, lower, upper)
    assert limited.tolist() == [[1, 5], [1, 5], [-1, -1], [-1, -1], [0.5, 0.5]]
    limited.backward(torch.tensor([[3.0, 3], [-3, -3], [3, 3], [-3, -3], [2, -2]]))
    assert q.grad.tolist() == [[3, 3], [0, -3], [0, 0], [-3, -3], [2, -2]]


def looks_of(model, q, pose, r, t, count):
    """Where an evaluation's looks stand, q_0 to q_count, and their squared pose errors, [count + 1, N, ...]."""
    at, joints = q.clamp(model.lower, model.upper), []
    for _ in range(count):
        joints.append(at)
        at, _ = model.look(at, pose, r, t)
    joints = torch.stack([*joints, at])
    return joints, torch.stack([model.geometry(at, pose)[1] for at in joints])


def test_in_training_the_answer_is_the_last_of_as_many_looks_as_the_configuration_says(panda, rng):
    model = MeanFlowNet(ModelConfig(7, 16, 1, passes=5, training_passes=2), panda).train()
    torch.nn.init.normal_(model.head.weight, std=0.2)
    q, pose, r, t = inputs(panda, 50, rng, torch.float32)
    joints, _ = looks_of(model, q, pose, r, t, 2)
    torch.testing.assert_close(model(q, pose, r, t), (joints[-1] - q) / (1 - r), rtol=0, atol=0)


def test_the_answer_is_the_best_look_of_all_starts_until_one_settles(any_robot, rng):
    robot = any_robot
    model = random_net(robot, dtype=torch.float32, passes=12, starts=3)
    torch.nn.init.normal_(model.head.weight, std=0.02)  # far from the pose it leads astray, near it does not
    q, pose, r, t = inputs(robot, 300, rng, torch.float32)
    near = robot.sample(300, rng, torch.float64)
    pose = torch.cat((pose, robot.fk(near).float()))
    q = torch.cat((q, robot.clamp(near + 0.1 * torch.randn(near.shape, generator=rng, dtype=near.dtype)).float()))
    r, t = torch.cat((r, 0 * r)), torch.cat((t, 0 * t + 1))
    endless = model.upper.isinf()
    lower, upper = model.lower.masked_fill(endless, -torch.pi), model.upper.masked_fill(endless, torch.pi)
    starts = []
    for share in (0, 1 / 3, -1 / 3):  # of each joint's range, around which it goes on
        there = q.clamp(model.lower, model.upper) + share * (upper - lower)
        around = lower + torch.remainder(there - lower, upper - lower)
        starts.append(torch.where(endless | (share == 0), there, around))
    joints, error2 = (torch.cat(x) for x in zip(*(looks_of(model, q, pose, r, t, 12) for q in starts), strict=True))
    expected, ends = q.clone(), []
    for i, errors in enumerate(error2[:, :, 0].T.tolist()):
        ends.append(next((k + 2 for k, error in enumerate(errors) if error <= NEAR2), len(errors)))
        seen = errors[: ends[-1]]
        expected[i] = joints[seen.index(min(seen)), i]
    ends = torch.tensor(ends)
    assert all(((ends > 13 * start + 1) & (ends <= 13 * start + 13)).any() for start in range(3)), (
        "all starts settle some"
    )
    assert (error2 > NEAR2).all(0).any(), "and some never settle"
    for answer in (model(q, pose, r, t).detach(), torch.no_grad()(model)(q, pose, r, t)):
        difference = (answer - (expected - q) / (1 - r)).abs().amax(1)
        assert (difference < 1e-5).float().mean() > 0.98  # rounding of a start grows where looks lead astray


def test_no_evaluation_ends_farther_away_than_it_began(any_robot, rng):
    """For weights that would lead far away, in a batch with rows of every length."""
    robot = any_robot
    model = random_net(robot, dtype=torch.float32, passes=6)
    torch.nn.init.normal_(model.head.weight, std=3.0)
    q, pose, r, t = inputs(robot, 500, rng, torch.float32)
    q = robot.clamp(q.double()).float().clamp(model.lower, model.upper)
    with torch.no_grad():
        answer = q + (1 - r) * model(q, pose, r, t)
        last = looks_of(model, q, pose, r, t, 6)[0][-1]
        before, after, of_last = (model.geometry(x, pose)[1] for x in (q, answer, last))
    assert (after.sqrt() <= before.sqrt() + 1e-6).all()
    assert (of_last > before).float().mean() > 0.1, "none would have been led away: a test of nothing"


def test_rows_that_need_no_more_looks_change_no_other(panda, rng):
    """Without gradient looks leave out such rows: the same answers as with all rows, also by `vmap`."""
    model = random_net(panda, dtype=torch.float32, passes=12)
    q, pose, r, t = inputs(panda, 60, rng, torch.float32)
    q[::2] = q[::2] * 0.02  # with poses of
    pose[::2] = panda.fk(q[::2].double() + 0.01).float()
    pose[5] = torch.nan
    whole = model(q, pose, r, t).detach()
    with torch.no_grad():
        narrowed = model(q, pose, r, t)
        mapped = torch.vmap(lambda q, pose: model(q, pose, r[:6], t[:6]))(q.view(10, 6, 7), pose.view(10, 6, 7))
        again = model(q, pose, r[:6].repeat(10, 1), t[:6].repeat(10, 1))
    torch.testing.assert_close(narrowed, whole, rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(mapped.flatten(0, 1), again, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert narrowed[5].isnan().all() and narrowed[:5].isfinite().all()


def test_a_network_learns_at_its_limits_by_every_kind_of_derivative(panda, rng):
    """Backward and by a Jacobian-vector product, in training mode, also where looks end at limits."""
    model = random_net(panda).train()
    torch.nn.init.normal_(model.head.weight, std=3.0)
    q, pose, r, t = inputs(panda, 20, rng)
    model(q, pose, r, t).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in model.parameters())
    u, derivative = total_derivative(model, q, pose, r, t, torch.ones_like(q))  # with gradients
    (u + derivative).square().mean().backward()
    model.requires_grad_(False)  # the clamp's own derivative
    torch.testing.assert_close(total_derivative(model, q, pose, r, t, torch.ones_like(q))[1], derivative)


def test_evaluated_gradients_are_exact(panda, rng):
    model = random_net(panda)
    q, pose, r, t = inputs(panda, 3, rng)
    q[0] = 0.0
    assert torch.autograd.gradcheck(lambda q: model(q, pose, r, t), (q.requires_grad_(),))


def test_features_are_finite_where_they_could_divide_by_zero(any_robot, rng):
    robot = any_robot
    geometry = Geometry(robot)
    q = robot.sample(4, rng)
    pose = robot.fk(q)  # reached: no rotation error
    base = robot.chain.transforms(like=q)[0]
    pose[2:, :3] = base[:, 3] + 0.5 * base[:, 2]  # on the first joint's axis
    features, error2 = geometry(q, pose)
    _, tangent = torch.func.jvp(lambda joints: geometry(joints, pose)[0], (q,), (torch.ones_like(q),))
    assert features.shape == (4, geometry.size) and error2.shape == (4, 1)
    assert features.isfinite().all() and tangent.isfinite().all()
    assert features[:2, -robot.dof :].abs().max() < 1e-4 and error2[:2].max() < 1e-12
