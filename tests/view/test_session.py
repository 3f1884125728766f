"""The viewer's state, without a browser."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from mfik.collision import Box, Sphere, World, write_spheres
from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import load_robot
from mfik.solve import Solver, Status
from mfik.view import Mode, Session, choose_solver

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1.safetensors"


@pytest.fixture
def session(panda):
    return Session(Solver.from_robot(panda))


@pytest.fixture
def learned():
    return Session(Solver.load(GOLDEN))


def errors(session, q):
    """Return position [m] and rotation error [rad] of joints, by PyTorch's kinematics."""
    pose, target = session.solver.robot.fk(torch.from_numpy(q)), torch.from_numpy(session.target)
    return float(position_error_m(pose, target)), float(rotation_error_rad(pose, target))


def moved(session, x=0.0, y=0.0, z=0.0):
    return session.target + [x, y, z, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_it_begins_away_from_singularities_and_limits(name):
    session = Session(Solver.from_robot(load_robot(name)))
    robot = session.solver.robot
    assert session.state.result.status is Status.SOLVED and session.state.manipulability > 0.02
    assert ((session.q > robot.lower + 0.1) & (session.q < robot.upper - 0.1)).all()


def test_the_solution_follows_the_target(session):
    before = session.q
    state = session.set_target(moved(session, y=0.2))
    assert state.result.status is Status.SOLVED and max(errors(session, session.q)) < 1e-5
    assert state.step == pytest.approx(np.abs(session.q - before).max())
    assert state.q is session.q and not session.moving


def test_an_unreachable_target_gives_its_reason(session):
    state = session.set_target(moved(session, x=2.0))
    assert state.result.status is Status.UNREACHABLE and "farther from the first joint" in state.explanation
    assert len(state.ghosts) == 0


def test_tracking_holds_the_jump_bound_and_arrives(session):
    session.mode = "tracking"
    session.max_step = 0.03
    states = [session.set_target(moved(session, y=0.3))]
    assert states[0].result.status is Status.JUMP_BOUND and "max_step" in states[0].explanation
    while session.moving:
        states.append(session.step())
        assert len(states) < 100
    assert all(state.step <= 0.03 + 1e-12 for state in states)
    assert states[-1].result.status is Status.SOLVED and max(errors(session, session.q)) < 1e-5


def test_tracking_comes_to_rest_where_it_cannot_arrive(session):
    session.mode = Mode.TRACK
    session.set_target(moved(session, x=2.0))
    errors = [session.state.result.pos_error]
    while session.moving:
        errors.append(session.step().result.pos_error)
        assert len(errors) < 300
    assert session.state.result.status is not Status.SOLVED and min(errors) < errors[0] - 0.1
    session.set_target(session.target)
    assert session.moving, "it tries again when asked"


def test_joints_move_the_target(session):
    robot = session.solver.robot
    q = np.array([0.3, -0.4, 0.2, -1.2, 0.1, 1.5, 9.0])
    session.set_joints(q)
    np.testing.assert_array_equal(session.q[:6], q[:6])
    assert session.q[6] == float(robot.upper[6])
    assert max(errors(session, session.q)) < 1e-9 and session.state.step == 0.0


def test_ghosts_are_other_solutions(session):
    session.num_ghosts = 6
    state = session.set_target(moved(session, z=-0.1))
    assert len(state.ghosts) == 6
    rows = np.vstack([state.q, state.ghosts])
    for index, ghost in enumerate(state.ghosts):
        assert max(errors(session, ghost)) < 1e-5
        assert all(np.abs(ghost - row).max() > 0.1 for row in rows[: index + 1])
    session.num_ghosts = 0
    assert len(session.update().ghosts) == 0


def test_the_answer_before_refinement_is_the_networks(learned):
    before = learned.q
    state = learned.set_target(moved(learned, y=0.05))
    expected = learned.solver.solve(state.target, before, seed="network", max_iterations=0, max_attempts=1)
    np.testing.assert_array_equal(state.one_step.q, expected.q)
    assert state.one_step.pos_error > state.result.pos_error
    learned.mode = Mode.NETWORK
    assert learned.update().result.status is Status.SOLVED
    learned.show_one_step = False
    assert learned.update().one_step is None


def test_without_a_network_nothing_claims_to_be_one(session):
    assert not session.has_network and session.state.one_step is None
    with pytest.raises(ArgumentError, match="no model is loaded"):
        session.mode = "network first"
    with pytest.raises(ValueError, match="teleport"):
        session.mode = "teleport"
    assert session.mode is Mode.ANY


def test_a_recording_replays_and_becomes_csv(panda):
    now = [10.0]
    session = Session(Solver.from_robot(panda), clock=lambda: now[0])
    session.record(True)
    for step in range(3):
        now[0] = 12.0 + 0.5 * step
        session.set_target(moved(session, x=0.0 if step < 2 else 2.0, y=0.05))
    session.record(False)
    session.random_target()
    shown = [session.recorded_at(elapsed) for elapsed in (0.0, 0.4, 0.6, 9.0)]
    assert [session.recorded.index(state) for state in shown] == [0, 0, 1, 2]

    header, *rows = csv.reader(io.StringIO(session.csv()))
    assert header[:8] == ["time_s", *panda.joint_names] and header[8:16] == "x_m y_m z_m qw qx qy qz status".split()
    assert [row[0] for row in rows] == ["0.000000", "0.500000", "1.000000"]
    assert [row[15] for row in rows] == ["SOLVED", "SOLVED", "UNREACHABLE"]
    for row, state in zip(rows, session.recorded, strict=True):
        np.testing.assert_array_equal(np.array(row[1:8], float), state.q)
        np.testing.assert_array_equal(np.array(row[8:15], float), state.target)
    session.record(True)
    assert session.recorded == []


def test_a_random_target_is_reachable(session):
    for _ in range(5):
        assert session.random_target().result.status is Status.SOLVED


def test_models_are_chosen_by_chain_and_limits(example_robots, monkeypatch, tmp_path):
    assert choose_solver().robot.name == load_robot("panda").name
    assert choose_solver("ur10").num_parameters == 0 or choose_solver("ur10").dof == 6
    golden = Solver.load(GOLDEN)
    assert choose_solver(model=str(GOLDEN)).num_parameters == golden.num_parameters
    with pytest.raises(BundleError, match="expected a model of the chain and limits of ur10"):
        choose_solver("ur10", str(GOLDEN), "base_link", "tool0")

    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "model.safetensors").write_bytes(GOLDEN.read_bytes())
    monkeypatch.setattr("mfik.solve.solver._MODELS", tmp_path)
    path = example_robots / "panda_description" / "urdf" / "panda.urdf"  # with a hand: two leaves
    assert choose_solver(str(path)).num_parameters == golden.num_parameters
    assert choose_solver(model="golden").num_parameters == golden.num_parameters
    assert choose_solver("ur10").num_parameters == 0
    monkeypatch.setattr("mfik.solve.solver._MODELS", tmp_path / "none")
    with pytest.raises(RobotError, match="give tip_link"):
        choose_solver(str(path))
    assert choose_solver(str(path), tip_link="panda_link8").num_parameters == 0


def crate_at(x, name="crate"):
    return Box([0.2, 0.8, 0.4], [x, 0, 0.2, 1, 0, 0, 0], name)


def test_answers_keep_clear_of_the_world_and_what_collides_is_known(panda):
    session = Session(Solver.from_robot(panda), World([crate_at(0.9), Sphere(0.05, [0, 0, 2, 1, 0, 0, 0], "ball")]))
    session.margin, session.num_ghosts = 0.02, 12
    free = session.set_target([0.5, 0.1, 0.4, 0, 1, 0, 0])
    assert free.result.status is Status.SOLVED and not free.collide[0]
    assert free.clearance.distance >= 0.02 and free.clearance.second in ("crate", "ball")
    assert free.self_clearance.distance == session.solver.clearance(free.q).distance >= 0.0
    near = session.move_shape("crate", [0.75, 0, 0.2, 1, 0, 0, 0])
    assert near.result.status is Status.SOLVED and not near.collide[0]
    np.testing.assert_array_equal(near.shape_poses[0], [0.75, 0, 0.2, 1, 0, 0, 0])
    assert near.collide.shape == (1 + len(near.ghosts),)
    for q, collides in zip(near.ghosts, near.collide[1:], strict=True):
        assert collides == (not session.solver.is_free(q[None], session.world, margin=0.02)[0])
    inside = session.move_shape("crate", [0.5, 0.1, 0.4, 1, 0, 0, 0])
    assert inside.result.status is Status.IN_COLLISION and inside.collide.all() and inside.clearance.distance < 0
    assert "crate" in (inside.clearance.first, inside.clearance.second) and "crate" in inside.explanation

    session.keep_clear = False
    assert session.update().result.status is Status.SOLVED and session.state.collide[0], "shown, not avoided"
    session.show(free)
    assert session.state is free and session.world.shapes[0].pose[0] == 0.9
    with pytest.raises(ArgumentError, match="crate, ball"):
        session.move_shape("brush", [0, 0, 0, 1, 0, 0, 0])


def test_joints_are_shown_as_they_are_though_they_collide(panda):
    session = Session(Solver.from_robot(panda), World([crate_at(0.6)]))
    q = np.array([0.3, 0.9, 0.2, -1.2, 0.1, 1.5, 0.5])
    state = session.set_joints(q)
    np.testing.assert_array_equal(state.q, q)
    assert state.result.status is Status.IN_COLLISION and state.collide[0]
    assert session.set_joints([0, -0.785, 0, -2.356, 0, 1.571, 0.785]).result.status is Status.SOLVED


def test_tracking_stops_before_an_obstacle_and_leaves_one_that_comes_near(panda):
    session = Session(Solver.from_robot(panda), World([crate_at(0.9)]))
    session.mode, session.margin = "tracking", 0.01
    session.set_joints([0, -0.785, 0, -2.356, 0, 1.571, 0.785])
    session.set_target(moved(session, x=0.6, z=-0.3))
    for _ in range(400):
        if not session.moving:
            break
        assert not session.step().collide[0]
    assert session.state.result.status is Status.IN_COLLISION and not session.moving
    rested = session.state.clearance.distance
    assert 0.01 <= rested < 0.03 and "crate" in (session.state.clearance.first, session.state.clearance.second)
    session.move_shape("crate", [0.88, 0, 0.2, 1, 0, 0, 0])
    depth = session.state.clearance.distance
    for _ in range(100):
        session.step()
    assert session.state.clearance.distance > max(depth, 0.0099) and not session.state.collide[0]


def test_without_spheres_nothing_is_said_of_collision(panda):
    session = Session(Solver.from_robot(dataclasses.replace(panda, body=None)))
    assert not session.has_body and session.state.clearance is None and not session.state.collide.any()


def test_spheres_are_shown_on_the_robot_that_has_them(tmp_path):
    write_spheres(tmp_path / "one.yml", {"panda_link7": [[0, 0, 0, 0.1]]})
    solver = choose_solver("panda", spheres=tmp_path / "one.yml")
    assert solver.robot.body.num_spheres == 1 and solver.num_parameters == 0
    with pytest.raises(ArgumentError, match="--spheres: expected --robot"):
        choose_solver(model="panda", spheres=tmp_path / "one.yml")
