"""Drawn poses and paths: reachable, of the kind asked for, and the same for the same seed."""

import math

import numpy as np
import pytest
import torch

from mfik.data import OnlineSource, generate
from mfik.errors import ArgumentError
from mfik.eval import KINDS, least_singular_value, make_path, make_targets
from mfik.eval.targets import _near_limits, _near_singular, random_numbers
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import Robot, load_robot

ROBOTS = ("panda", "ur10")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROBOTS)
def test_same_seed_same_targets_and_references_within_limits(name, kind):
    robot = load_robot(name)
    first, second, other = (make_targets(robot, 33, kind=kind, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.pose, second.pose) and np.array_equal(first.q_ref, second.q_ref)
    assert not np.array_equal(first.pose, other.pose)
    assert first.pose.shape == (33, 7) and first.q_ref.shape == (33, robot.dof)
    assert robot.within_limits(torch.from_numpy(first.q_ref)).all()


@pytest.mark.parametrize("coupling", ["global", "local", "mixed"])
def test_no_pose_of_an_evaluation_is_trained_on(panda, coupling):
    """With the same seed, and with any: training's numbers come from other generators."""
    for seed in (0, 1):
        rows = OnlineSource(panda, 2000, coupling=coupling, seed=seed).batch(0)
        online = rows.draw(seed=seed, step=0, num_jvp=0, num_endpoint=0).target_pose
        trained = torch.cat([generate(panda, 2000, coupling=coupling, seed=seed).target_pose, online])[:, :3]
        asked = torch.from_numpy(make_targets(panda, 2000, seed=seed).pose).float()[:, :3]
        assert torch.cdist(asked, trained, compute_mode="donot_use_mm_for_euclid_dist").min() > 1e-5  # [m]


@pytest.mark.parametrize("name", ROBOTS)
def test_joints_of_near_limit_poses_are_near_limits_and_inside(name):
    robot = load_robot(name)
    q = _near_limits(robot, 500, random_numbers(0))
    lower, upper = robot.limits()
    low, high = q - lower, upper - q
    distance = torch.minimum(low, high)
    assert robot.within_limits(q).all()
    assert ((distance <= 0.05).sum(-1) >= 3).all()
    near = distance <= 0.05
    assert near.any(0).all() and (near & (low < high)).any() and (near & (low > high)).any()  # any joint, either side


@pytest.mark.parametrize("name", ROBOTS)
def test_near_singular_poses_have_a_small_singular_value(name):
    robot = load_robot(name)
    q = _near_singular(robot, 300, random_numbers(0))
    assert robot.within_limits(q).all() and (least_singular_value(robot, q) < 0.02).all()


def test_targets_are_the_poses_of_the_joints_drawn(panda):
    for kind, draw in (("near_limits", _near_limits), ("near_singular", _near_singular)):
        q = draw(panda, 20, random_numbers(5))
        np.testing.assert_array_equal(make_targets(panda, 20, kind=kind, seed=5).pose, panda.fk(q).numpy())


def test_least_singular_value_is_zero_at_known_singularities_and_not_elsewhere(panda):
    """UR10: elbow straight (joint 3 = 0), wrist axes aligned (joint 5 = 0). Panda: all joints 0."""
    ur10 = load_robot("ur10")
    regular = torch.tensor([0.3, -1.0, 1.2, 0.4, 1.1, 0.2], dtype=torch.float64)
    straight, aligned = regular.clone(), regular.clone()
    straight[2], aligned[4] = 0.0, 0.0
    assert least_singular_value(ur10, regular) > 0.05
    assert least_singular_value(ur10, torch.stack([straight, aligned])).max() < 1e-12
    assert least_singular_value(panda, torch.zeros(7, dtype=torch.float64)) < 1e-12


@pytest.mark.parametrize("name", ROBOTS)
def test_a_path_moves_one_to_three_degrees_a_step_within_the_limits(name):
    robot = load_robot(name)
    path = make_path(robot, 2000, seed=3)
    joints = torch.from_numpy(path.q_ref)
    largest = (joints[1:] - joints[:-1]).abs().amax(-1)
    assert largest.min() >= math.radians(1) - 1e-12 and largest.max() <= math.radians(3) + 1e-12
    assert robot.within_limits(joints).all()
    pose, target = robot.fk(joints[1:]), torch.from_numpy(path.pose[:-1])  # a step's pose is that of the next reference
    assert position_error_m(pose, target).max() < 1e-12 and rotation_error_rad(pose, target).max() < 1e-7
    assert (joints.amax(0) - joints.amin(0)).max() > 1  # [rad]: it goes somewhere
    assert np.array_equal(make_path(robot, 2000, seed=3).pose, path.pose)


@pytest.mark.parametrize(
    "steps", [{"n": 0}, {"n": 5, "min_step": 0.0}, {"n": 5, "min_step": 0.2}, {"n": 5, "max_step": 2}]
)
def test_bad_path_arguments_are_named(panda, steps):
    with pytest.raises(ArgumentError, match=list(steps)[-1]):
        make_path(panda, **steps)


def test_robots_without_such_poses_are_refused(panda):
    document = panda.to_dict()
    for joint in document["joints"]:
        joint.update(kind="continuous", lower=-math.pi, upper=math.pi)
    with pytest.raises(ArgumentError, match="no joint limits"):
        make_targets(Robot.from_dict(document), 5, kind="near_limits")
    document["joints"], document["body"] = document["joints"][:5], None
    with pytest.raises(ArgumentError, match="5 joints"):
        make_targets(Robot.from_dict(document), 5, kind="near_singular")
