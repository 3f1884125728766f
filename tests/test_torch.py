"""The differentiable layer: its derivatives are those of what the solver answers."""

import math

import pytest
import torch

from mfik.errors import ArgumentError, RobotError
from mfik.kinematics import normalize_pose, quat_conjugate, quat_multiply, quat_rotate
from mfik.robots import load_robot
from mfik.solve import Options, Solver, Status
from mfik.torch import ik

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

EXACT = dict(tol_pos=1e-12, tol_rot=1e-12, max_iterations=50)
TOOL = (0.1, 0.05, 0.2, 0.5, 0.5, 0.5, 0.5)


def draw(robot, n, rng, dtype=torch.float64):
    """Return poses [n, 7] away from limits and singularities, references near their joints, and these."""
    q = robot.sample(20 * n + 20, rng, torch.float64)
    lower, upper = robot.limits()
    inside = ((q > lower + 0.05 * (upper - lower)) & (q < upper - 0.05 * (upper - lower))).all(-1)
    regular = torch.linalg.svdvals(robot.jacobian(q))[:, -1] > 0.05
    q = q[inside & regular][:n]
    assert len(q) == n
    q_ref = q + 0.05 * torch.randn(q.shape, generator=rng, dtype=q.dtype)
    return robot.fk(q).to(dtype), q_ref.to(dtype), q.to(dtype)


def jacobians(robot, pose, q_ref, **options):
    """Return q [N, J], its derivatives by the twist of the pose [N, J, 6] and by q_ref [N, J, J], and the gradients
    with respect to the pose [N, J, 7] they come from.
    """
    pose, q_ref = pose.detach().requires_grad_(), q_ref.detach().requires_grad_()
    q = ik(robot, pose, q_ref, **options)
    rows = [torch.autograd.grad(q[:, j].sum(), (pose, q_ref), retain_graph=True) for j in range(q.shape[1])]
    by_pose, by_q_ref = (torch.stack(x, dim=1) for x in zip(*rows, strict=True))
    turns = torch.cat([torch.zeros(3, 1), torch.eye(3)], -1).to(pose)  # a rotation w moves quat by [0, w] quat / 2
    by_turn = 0.5 * quat_multiply(turns[None], pose.detach()[:, None, 3:])  # [N, 3, 4]
    return q.detach(), torch.cat([by_pose[..., :3], by_pose[..., 3:] @ by_turn.mT], -1), by_q_ref, by_pose


def compose(left, right):
    return torch.cat(
        [left[..., :3] + quat_rotate(left[..., 3:], right[..., :3]), quat_multiply(left[..., 3:], right[..., 3:])], -1
    )


class TestDerivatives:
    def test_q_of_an_arm_of_six_joints_passes_gradcheck(self, ur10, rng):
        pose, q_ref, _ = draw(ur10, 3, rng)
        inputs = (pose.requires_grad_(), q_ref.requires_grad_())
        assert torch.autograd.gradcheck(lambda *x: ik(ur10, *x, **EXACT), inputs, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(lambda *x: ik(ur10, *x, **EXACT), inputs)

    @pytest.mark.parametrize("throughput", [False, True])
    def test_the_pose_of_redundant_joints_passes_gradcheck(self, panda, rng, throughput):
        pose, q_ref, _ = draw(panda, 3, rng)
        inputs = (pose.requires_grad_(), q_ref.requires_grad_())
        assert torch.autograd.gradcheck(lambda *x: panda.fk(ik(panda, *x, throughput=throughput, **EXACT)), inputs)

    def test_locking_a_redundant_joint_passes_gradcheck(self, panda, rng):
        pose, q_ref, q = draw(panda, 3, rng)
        q_ref[:, 2] = q[:, 2]
        inputs = (pose.requires_grad_(), q_ref.requires_grad_())
        assert torch.autograd.gradcheck(lambda *x: ik(panda, *x, locked=[2], **EXACT), inputs)

    def test_the_jacobian_of_q_undoes_that_of_the_pose(self, any_robot, rng):
        """All but near singularities: damping of 1e-10 is an error of 1e-4 at a singular value of 1e-3."""
        pose, q_ref = any_robot.fk(any_robot.sample(300, rng, torch.float64)), any_robot.sample(300, rng, torch.float64)
        options = dict(tol_pos=1e-10, tol_rot=1e-10, max_iterations=50)
        assert (ik(any_robot, pose, q_ref, return_status=True, **options)[1] == Status.SOLVED).all()
        q, by_twist, _, by_pose = jacobians(any_robot, pose, q_ref, **options)
        lower, upper = any_robot.limits()
        jac = any_robot.jacobian(q)
        jac_free = jac * ((q > lower) & (q < upper))[:, None]
        usual = torch.linalg.svdvals(jac_free)[:, -1] > 1e-3
        assert usual.float().mean() > 0.9
        torch.testing.assert_close(
            (jac @ by_twist)[usual], torch.eye(6, dtype=q.dtype).expand(300, 6, 6)[usual], atol=1e-3, rtol=0
        )
        along = (by_pose[..., 3:] * pose[:, None, 3:]).sum(-1)  # of the quaternion itself, which the solver normalises
        assert along.abs().max() < 1e-12 * by_pose.abs().max()

    @pytest.mark.parametrize("weights", [None, (1, 2, 3, 1, 2, 3, 0.5)])
    def test_the_reference_moves_the_nearest_solution(self, panda, rng, weights):
        """Where q_ref is a solution, the model is exact: `nearest` is held to it by differences of 1e-3 rad."""
        pose, _, q = draw(panda, 10, rng)
        options = dict(nearest=True, joint_weights=weights)
        _, _, by_q_ref, _ = jacobians(panda, pose, q, **options, **EXACT)
        step = 1e-3
        for j in range(panda.dof):
            shift = step * torch.eye(panda.dof, dtype=q.dtype)[j]
            ends = [ik(panda, pose, q + sign * shift, **options, **EXACT) for sign in (1, -1)]
            torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), by_q_ref[:, :, j], atol=0.02, rtol=0)
        assert by_q_ref.abs().amax((1, 2)).min() > 0.05

    def test_a_tool_is_the_same_as_the_pose_of_the_tip(self, ur10, rng):
        tip, q_ref, _ = draw(ur10, 20, rng)
        tool = torch.tensor(TOOL, dtype=tip.dtype)
        pose = compose(tip, tool).requires_grad_()
        quat = quat_conjugate(tool[3:])
        back = torch.cat([-quat_rotate(quat, tool[:3]), quat])
        weights = torch.randn(20, 6, generator=rng, dtype=tip.dtype)
        results = []
        of_tip = compose(normalize_pose(pose), back)
        for q in (ik(ur10, pose, q_ref, tool=TOOL, **EXACT), ik(ur10, of_tip, q_ref, **EXACT)):
            results.append((q, *torch.autograd.grad((weights * q).sum(), pose)))
        torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-6)

    def test_a_joint_on_its_limit_is_held(self, panda, rng):
        _, _, q = draw(panda, 20, rng)
        q[:, 3] = panda.upper[3]
        pose = panda.fk(q)
        found, by_twist, by_q_ref, _ = jacobians(panda, pose, q, **EXACT)
        assert (found[:, 3] == panda.upper[3]).all()
        assert (by_twist[:, 3] == 0).all() and (by_q_ref[:, 3] == 0).all() and (by_q_ref[:, :, 3] == 0).all()
        _, locked, _, _ = jacobians(panda, pose, q, locked=[3], **EXACT)  # the others move as if it were locked
        assert torch.equal(by_twist, locked) and by_twist.abs().amax((1, 2)).min() > 0.1

    def test_rows_without_a_solution_have_no_gradient_and_leave_the_others_theirs(self, panda, rng):
        pose, q_ref, _ = draw(panda, 6, rng)
        pose[2, :3] += 10.0
        _, status = ik(panda, pose, q_ref, return_status=True)
        assert status.tolist() == [0, 0, Status.UNREACHABLE, 0, 0, 0]
        _, by_twist, by_q_ref, _ = jacobians(panda, pose, q_ref)
        assert (by_twist[2] == 0).all() and (by_q_ref[2] == 0).all()
        _, alone, alone_q_ref, _ = jacobians(panda, pose[3:], q_ref[3:])
        assert torch.equal(by_twist[3:], alone) and torch.equal(by_q_ref[3:], alone_q_ref)

    def test_at_singular_poses_derivatives_are_finite_and_bounded(self, ur10):
        """With the elbow straight, with the wrist straight."""
        q = torch.tensor([[0.3, -1.0, 0.0, 0.4, 0.5, 0.6], [0.3, -1.0, 1.2, 0.4, 0.0, 0.6]], dtype=torch.float64)
        found, by_twist, by_q_ref, _ = jacobians(ur10, ur10.fk(q), q)
        assert torch.linalg.svdvals(ur10.jacobian(found))[:, -1].max() < 1e-6
        assert by_twist.isfinite().all() and by_twist.abs().max() <= 0.5 / math.sqrt(1e-10)
        assert by_q_ref.isfinite().all() and by_q_ref.abs().max() <= 1.0 + 1e-6

    def test_float32_has_the_gradients_of_float64(self, any_robot, rng):
        pose, q_ref, _ = draw(any_robot, 50, rng)
        q, by_twist, by_q_ref, _ = jacobians(any_robot, pose, q_ref)
        single, *gradients, _ = jacobians(any_robot, pose.float(), q_ref.float())
        assert single.dtype == torch.float32 and any_robot.within_limits(single).all()
        near = (single - q).abs().amax(1) < 1e-4
        assert near.float().mean() > 0.9
        for gradient, expected in zip(gradients, (by_twist, by_q_ref), strict=True):
            torch.testing.assert_close(gradient.double()[near], expected[near], atol=5e-3, rtol=5e-3)

    def test_what_the_device_refuses_has_no_gradient(self, panda, rng, monkeypatch):
        """CUDA's solver, here on the CPU, answers invalid rows with NaN."""
        monkeypatch.setattr(
            Solver, "solve_batch", lambda self, pose, q_ref, *, options, **_: self._solve_tensors(pose, q_ref, options)
        )
        pose, q_ref, _ = draw(panda, 6, rng)
        pose[1, 3:], pose[2], q_ref[3, 0] = 0.0, math.nan, math.nan
        q, status = ik(panda, pose, q_ref, return_status=True)
        assert status.tolist() == [0, *[Status.INVALID_INPUT] * 3, 0, 0] and q[1:4].isnan().all()
        _, _, by_q_ref, by_pose = jacobians(panda, pose, q_ref)
        assert (by_pose[1:4] == 0).all() and (by_q_ref[1:4] == 0).all()
        assert by_pose.isfinite().all() and by_pose[[0, 4, 5]].abs().amax((1, 2)).min() > 0.1


class TestCalls:
    def test_it_answers_what_solve_batch_answers(self, any_robot, rng):
        pose, q_ref, _ = draw(any_robot, 20, rng)
        solver = Solver.from_robot(any_robot)
        for options in ({}, dict(throughput=True, threads=2), dict(seed="midpoint", max_attempts=1)):
            expected = solver.solve_batch(pose, q_ref, **options)
            q, status = ik(solver, pose, q_ref, return_status=True, **options)
            assert torch.equal(q, torch.from_numpy(expected.q)) and status.tolist() == expected.status.tolist()
            assert torch.equal(ik(any_robot, pose, q_ref, **options), q)
            assert not q.requires_grad

    def test_no_rows(self, panda):
        pose, q_ref = torch.zeros(0, 7, requires_grad=True), torch.zeros(0, 7, requires_grad=True)
        q, status = ik(panda, pose, q_ref, return_status=True)
        assert q.shape == (0, 7) and status.shape == (0,)
        assert [x.shape for x in torch.autograd.grad(q.sum(), (pose, q_ref))] == [(0, 7), (0, 7)]

    def test_strided_rows_and_references_outside_the_limits(self, ur10, rng):
        pose, q_ref, _ = draw(ur10, 8, rng)
        q_ref += 20.0
        expected = jacobians(ur10, pose, q_ref)
        strided = jacobians(ur10, pose.T.contiguous().T, q_ref.repeat_interleave(2, 1)[:, ::2])
        assert all(map(torch.equal, strided, expected))
        assert ur10.within_limits(expected[0]).all()

    def test_a_step_along_the_gradient_of_a_learned_pose_leads_to_the_joints(self, ur10, rng):
        pose, q_ref, q = draw(ur10, 4, rng)
        target = q + 0.02
        learned = pose.clone().requires_grad_()
        optimiser = torch.optim.Adam([learned], lr=2e-3)
        losses = []
        for _ in range(200):
            loss = (ik(ur10, normalize_pose(learned), q) - target).square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 1e-3 * losses[0]


class TestTransforms:
    @pytest.fixture
    def rows(self, ur10, rng):
        pose, q_ref, _ = draw(ur10, 4, rng)
        return pose, q_ref, lambda pose, q_ref: ik(ur10, pose[None], q_ref[None], **EXACT)[0]

    def test_vmap_is_the_batch(self, ur10, rows):
        pose, q_ref, one = rows
        expected = ik(ur10, pose, q_ref, **EXACT)
        assert torch.equal(torch.func.vmap(one)(pose, q_ref), expected)
        assert torch.equal(torch.func.vmap(one, in_dims=(1, 0))(pose.T, q_ref), expected)
        nested = torch.func.vmap(torch.func.vmap(one, in_dims=(0, None)), in_dims=(None, 0))(pose, q_ref)  # [4, 4, 6]
        assert torch.equal(nested[torch.arange(4), torch.arange(4)], expected)

    def test_grad_and_jacrev_are_those_of_autograd(self, ur10, rows):
        pose, q_ref, one = rows
        _, _, by_q_ref, by_pose = jacobians(ur10, pose, q_ref, **EXACT)
        jac = torch.func.vmap(torch.func.jacrev(one, argnums=(0, 1)))(pose, q_ref)
        torch.testing.assert_close(jac, (by_pose, by_q_ref))
        gradient = torch.func.grad(lambda pose: ik(ur10, pose, q_ref, **EXACT).sum())(pose)
        torch.testing.assert_close(gradient, by_pose.sum(1))
        again = torch.autograd.functional.jacobian(lambda x: ik(ur10, x, q_ref, **EXACT), pose, vectorize=True)
        torch.testing.assert_close(torch.einsum("njnk->njk", again), by_pose)

    def test_forward_mode_is_refused(self, rows):
        pose, q_ref, one = rows
        with pytest.raises(ArgumentError, match=r"pose: expected no tangent, as mfik\.torch\.ik has none"):
            torch.func.jvp(lambda pose: one(pose, q_ref[0]), (pose[0],), (pose[0],))
        with pytest.raises(ArgumentError, match="q_ref: .* reverse mode"):
            torch.func.jacfwd(one, argnums=1)(pose[0], q_ref[0])

    @pytest.mark.slow
    def test_compiled_code_goes_around_it_or_says_its_name(self, ur10, rng):
        pose, q_ref, _ = draw(ur10, 4, rng)

        def loss(pose):
            return ur10.fk(ik(ur10, 1.0 * pose, q_ref)).square().sum()

        with pytest.raises(torch._dynamo.exc.Unsupported, match=r"mfik\.torch\.ik calls the C\+\+ solver"):
            torch.compile(loss, fullgraph=True)(pose)
        torch.compiler.reset()
        pose.requires_grad_()
        expected, found = (torch.autograd.grad(call(pose), pose)[0] for call in (loss, torch.compile(loss)))
        torch.testing.assert_close(found, expected)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (dict(solver="panda"), r"solver: expected a Solver or a Robot, got 'panda'; load one with load_robot"),
            (dict(pose=torch.zeros(7)), r"pose: expected \[N, 7\], got \[7\]; give one row per sample"),
            (dict(pose=[[0.0] * 7]), r"pose: expected a tensor \[N, 7\], got list"),
            (dict(pose=torch.zeros(2, 7).half()), r"pose: expected torch.float32 or torch.float64, got torch.float16"),
            (dict(pose=torch.zeros(2, 7)), r"pose\[0\]: expected a unit quaternion .* divide it by its norm"),
            (dict(pose=torch.full((2, 7), math.nan)), r"pose\[0, 0\]: expected a finite number, got nan"),
            (dict(q_ref=torch.zeros(3, 7)), r"q_ref: expected \[2, 7\] to go with pose \[2, 7\], got \[3, 7\]"),
            (dict(q_ref=torch.zeros(2, 7).double()), r"q_ref: expected torch.float32 .* got torch.float64"),
            (dict(tol_pos=-1.0), r"tol_pos: expected a finite number of at least 0, got -1.0"),
            (dict(threads=0), r"threads: expected an integer from 1"),
            (
                dict(slack=[0, 0, 0, 0, 0, math.inf]),
                r"slack: expected none, .* leave it out, or use Solver.solve_batch",
            ),
            (
                dict(tool=torch.tensor(TOOL, requires_grad=True)),
                r"tool: expected no gradient, .* got requires_grad=True; detach it, or let the pose depend on it",
            ),
        ],
    )
    def test_an_error_names_argument_expectation_value_and_remedy(self, panda, change, message):
        pose = torch.tensor([0.3, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0]).repeat(2, 1)
        arguments = dict(solver=panda, pose=pose, q_ref=torch.zeros(2, 7)) | change
        with pytest.raises(ArgumentError, match=message):
            ik(arguments.pop("solver"), **arguments)

    def test_every_option_but_slack_is_one_of_the_layer(self, panda, rng):
        pose, q_ref, _ = draw(panda, 1, rng)
        for name in Options.__dataclass_fields__:
            ik(panda, pose, q_ref, **{name: getattr(Options(), name)})
        with pytest.raises(TypeError, match="time_each"):
            ik(panda, pose, q_ref, time_each=True)

    def test_mimic_joints_are_refused_before_the_solve(self, tmp_path):
        joint = (
            '<joint name="{0}" type="revolute"><parent link="{1}"/><child link="{2}"/><axis xyz="0 0 1"/>{3}</joint>'
        )
        limit = '<limit lower="-1" upper="1" effort="1" velocity="1"/>'
        text = "".join(f'<link name="{name}"/>' for name in "abc") + joint.format("one", "a", "b", limit)
        text += joint.format("two", "b", "c", limit + '<mimic joint="one"/>')
        (tmp_path / "mimic.urdf").write_text(f'<robot name="mimic">{text}</robot>')
        robot = load_robot(tmp_path / "mimic.urdf")
        with pytest.raises(RobotError, match=r"mfik\.torch\.ik: mimic joints are not supported"):
            ik(robot, torch.zeros(1, 7), torch.zeros(1, 1))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_tensors_stay_there(panda, rng, dtype):
    pose, q_ref, _ = draw(panda, 50, rng, dtype)
    q, by_twist, _, _ = jacobians(panda, pose.cuda(), q_ref.cuda())
    assert q.is_cuda and by_twist.is_cuda and q.dtype == dtype
    jac = panda.jacobian(q.double())
    torch.testing.assert_close(jac @ by_twist.double(), torch.eye(6).to(jac).expand(50, 6, 6), atol=1e-3, rtol=0)
