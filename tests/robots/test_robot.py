"""Robot: limits, sampling, documents."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mfik.errors import ArgumentError, RobotError
from mfik.robots import PRESETS, Robot, load_robot

ROBOTS = {name: load_robot(name) for name in PRESETS}


@pytest.fixture(params=PRESETS)
def robot(request) -> Robot:
    return ROBOTS[request.param]


def test_presets_have_the_documented_frames_and_limits():
    panda, ur10 = ROBOTS["panda"], ROBOTS["ur10"]
    assert (panda.name, panda.base_link, panda.tip_link, panda.dof) == ("panda", "panda_link0", "panda_link8", 7)
    assert (ur10.name, ur10.base_link, ur10.tip_link, ur10.dof) == ("ur10", "base_link", "tool0", 6)
    assert panda.kinds == ("revolute",) * 7
    assert panda.lower.tolist() == [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]
    assert panda.upper.tolist() == [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
    assert ur10.upper.tolist() == [2 * math.pi, 2 * math.pi, math.pi, 2 * math.pi, 2 * math.pi, 2 * math.pi]
    assert (ur10.lower == -ur10.upper).all()


def test_a_preset_may_be_named_by_a_path():
    robot = load_robot(Path("panda"))
    assert robot.fingerprint() == load_robot("panda").fingerprint() and robot.body is not None


def test_unknown_name_lists_the_presets():
    with pytest.raises(RobotError, match=r"expected a preset \(panda, ur10\), a path.*got 'pandda'"):
        load_robot("pandda")


def test_preset_ends_can_be_chosen():
    robot = load_robot("panda", tip_link="panda_link7")
    assert (robot.base_link, robot.tip_link) == ("panda_link0", "panda_link7")
    assert load_robot("ur10", base_link="base").base_link == "base"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_within_limits_fill_them_and_are_reproducible(robot, dtype):
    q = robot.sample(5000, torch.Generator().manual_seed(0), dtype)
    assert q.shape == (5000, robot.dof)
    assert q.dtype == dtype
    assert robot.within_limits(q).all()
    lower, upper = robot.limits()
    assert (q.amin(0) < lower + 0.01 * (upper - lower)).all()
    assert (q.amax(0) > upper - 0.01 * (upper - lower)).all()
    assert (robot.sample(5000, torch.Generator().manual_seed(0), dtype) == q).all()
    assert robot.sample(0, dtype=dtype).shape == (0, robot.dof)


def test_clamped_float32_joints_hold_the_limits_in_float64_too(robot):
    far = torch.full((1, robot.dof), 100.0)
    for q in (robot.clamp(far), robot.clamp(-far)):
        assert q.dtype == torch.float32
        assert robot.within_limits(q).all()
    lower, upper = robot.limits()
    assert (robot.clamp(far.double()) == upper).all()
    assert (robot.clamp(-far.double()) == lower).all()


def test_within_limits_counts_the_tolerance_and_refuses_nan(robot):
    q = robot.limits()[1].repeat(4, 1)
    q[1, 2] += 1e-3
    q[2, 0] = math.nan
    q[3, 1] = robot.lower[1] - 1e-3
    assert robot.within_limits(q).tolist() == [True, False, False, False]
    assert robot.within_limits(q, tol=2e-3).tolist() == [True, True, False, True]


@pytest.mark.parametrize("method", ["fk", "jacobian", "clamp", "within_limits"])
@pytest.mark.parametrize("make", [torch.zeros, np.zeros])
def test_methods_reject_wrong_joints_by_name(robot, method, make):
    with pytest.raises(ArgumentError, match=r"q: expected \[\.\.\., \d\].*got \[3, 5\]"):
        getattr(robot, method)(make((3, 5)))
    with pytest.raises(ArgumentError, match=r"q: expected .*\[\.\.\., \d\].*got str"):
        getattr(robot, method)("home")


@pytest.mark.parametrize("batch", [(), (0,), (1,), (33,), (2, 3), (2, 0)])
def test_arrays_are_answered_with_arrays_as_tensors_with_tensors(any_robot, batch):
    robot = any_robot
    q = np.random.default_rng(1).uniform(-4, 4, (*batch, robot.dof))
    for method, tolerance in (("fk", 1e-14), ("jacobian", 1e-14), ("clamp", 0), ("within_limits", 0)):
        expected = getattr(robot, method)(torch.from_numpy(q))
        assert isinstance(expected, torch.Tensor)
        for same in (q, q.tolist(), np.repeat(q, 2, -1)[..., ::2]) if q.size else (q,):
            answer = getattr(robot, method)(same)
            assert isinstance(answer, (np.ndarray, np.bool_)) and answer.shape == expected.shape
            np.testing.assert_allclose(answer, expected.numpy(), rtol=0, atol=tolerance)
    if q.size:
        single = robot.fk(q.astype(np.float32))
        assert single.dtype == np.float64
        np.testing.assert_array_equal(single, robot.fk(q.astype(np.float32).astype(np.float64)))


def test_arrays_are_sampled_unless_something_of_torch_is_given(robot):
    q = robot.sample(5000, np.random.default_rng(0))
    assert q.dtype == np.float64 and robot.within_limits(q).all()
    np.testing.assert_array_equal(robot.sample(5000, np.random.default_rng(0)), q)
    share = (q - robot.lower) / (robot.upper - robot.lower)
    assert (share.min(0) < 0.01).all() and (share.max(0) > 0.99).all() and (np.abs(share.mean(0) - 0.5) < 0.02).all()
    first, second = robot.sample(3), robot.sample(3)
    assert isinstance(first, np.ndarray) and (first != second).all()
    for given in (dict(generator=torch.Generator()), dict(dtype=torch.float32), dict(device="cpu")):
        assert robot.sample(3, **given).dtype == torch.float32
    assert robot.sample(3, torch.Generator(), torch.float64, "cpu").dtype == torch.float64
    with pytest.raises(ArgumentError, match="generator: expected one of PyTorch"):
        robot.sample(3, np.random.default_rng(), torch.float64)


def test_numbers_of_a_robot_are_read_only_in_copies_too(robot):
    for one in (robot, copy.deepcopy(robot), pickle.loads(pickle.dumps(robot)), dataclasses.replace(robot, name="x")):
        for array in (one.lower, one.upper, one.chain.origins):
            assert array.dtype == np.float64
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0.0
        assert one.fingerprint() == robot.fingerprint()
        one.fk(one.sample(2)), one.fk(one.sample(2, dtype=torch.float32)), one.limits()  # what these keep is not copied


def test_limits_are_given_as_tensors(robot):
    for tensor, array in zip(robot.limits(), (robot.lower, robot.upper), strict=True):
        assert tensor.dtype == torch.float64
        np.testing.assert_array_equal(tensor.numpy(), array)
    q = torch.zeros(1)
    assert all(torch.equal(a, b.float()) for a, b in zip(robot.limits(like=q), robot.limits(), strict=True))


def test_document_survives_json_bit_by_bit(robot):
    document = robot.to_dict()
    keys = ["name", "base_link", "tip_link", "joints", "tool"]
    assert list(document) == keys + ["body"] * (robot.body is not None)
    assert list(document["joints"][0]) == ["name", "kind", "lower", "upper", "velocity", "origin"]
    parsed = json.loads(json.dumps(document))
    assert parsed == document
    back = Robot.from_dict(parsed)
    assert (back.chain.origins == robot.chain.origins).all()
    assert (back.lower == robot.lower).all() and (back.upper == robot.upper).all()
    names = ("name", "base_link", "tip_link", "joint_names", "kinds")
    assert [getattr(back, name) for name in names] == [getattr(robot, name) for name in names]
    assert back.to_dict() == document
    q = robot.sample(10, dtype=torch.float32)
    assert torch.equal(back.fk(q), robot.fk(q))


def test_fingerprint_tells_robots_apart_but_not_names(robot):
    fingerprint = robot.fingerprint()
    assert len(fingerprint) == 64
    assert Robot.from_dict(robot.to_dict()).fingerprint() == fingerprint
    assert dataclasses.replace(robot, name="other").fingerprint() == fingerprint
    assert ROBOTS["panda"].fingerprint() != ROBOTS["ur10"].fingerprint()
    for change in ({"lower": robot.lower - 1e-6}, {"joint_names": tuple("abcdefg"[: robot.dof])}):
        assert dataclasses.replace(robot, **change).fingerprint() != fingerprint
    moved = robot.to_dict()
    moved["tool"][3] += 1e-6
    assert Robot.from_dict(moved).fingerprint() != fingerprint


def test_fingerprint_ignores_the_last_bits_of_another_machine(robot):
    document = robot.to_dict()
    for joint in document["joints"]:
        joint["origin"] = [value + 1e-16 for value in joint["origin"]]
    assert Robot.from_dict(document).fingerprint() == robot.fingerprint()


def edited(path: list, value: object) -> dict:
    """Return panda's document with one entry replaced, or removed where value is KeyError."""
    document = copy.deepcopy(ROBOTS["panda"].to_dict())
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (edited(["tool"], KeyError), "expected key 'tool'.*Robot.to_dict"),
        (edited(["joints", 0, "kind"], KeyError), "expected key 'kind'.*Robot.to_dict"),
        (edited(["joints"], 3), "expected the types of Robot.to_dict"),
        (edited(["joints"], []), "expected 1 to 16 joints, got 0"),
        (edited(["tool"], [0.0] * 11), "expected 12 numbers per transform"),
        (edited(["tool"], ["a"] * 12), "expected the types of Robot.to_dict"),
        (edited(["tool"], [0.0] * 12), r"origins\[7\]: expected a rigid transform"),
        (edited(["joints", 2, "kind"], "floating"), "got 'floating'"),
        (edited(["joints", 2, "lower"], 9.0), r"joint 'panda_joint3': expected finite limits, lower < upper, got \[9"),
        (edited(["joints", 2, "upper"], math.inf), r"joint 'panda_joint3': expected finite limits.*inf"),
        (edited(["joints", 2, "kind"], "continuous"), r"joint 'panda_joint3': expected \[-pi, pi\]"),
        (edited(["joints", 2, "name"], "panda_joint1"), "joint_names: expected 7 different names"),
    ],
)
def test_from_dict_rejects_bad_documents(document, message):
    with pytest.raises(RobotError, match=message):
        Robot.from_dict(document)
