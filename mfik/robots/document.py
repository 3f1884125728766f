"""The document of a robot, which data files and bundles carry."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mfik.collision.body import Body
from mfik.errors import RobotError
from mfik.kinematics.chain import Chain

if TYPE_CHECKING:
    from mfik.robots.robot import Robot

# Digits after the point (nanometres) that the fingerprint sees: another machine's libm may change the last bit.
FINGERPRINT_DECIMALS = 9


def write_document(robot: Robot) -> dict[str, Any]:
    """See `Robot.to_dict`."""
    origins = robot.chain.origins.reshape(-1, 12).tolist()
    lower, upper, velocity = robot.lower.tolist(), robot.upper.tolist(), robot.velocity.tolist()
    own = zip(robot.joint_names, lower, upper, velocity, strict=True)
    joints: list[dict[str, Any]] = []
    for f, (kind, origin) in enumerate(zip(robot.chain.kinds, origins[:-1], strict=True)):
        mimic = robot.chain.mimics[f] if robot.chain.mimics else None
        if mimic is not None:
            follows = {"joint": robot.joint_names[mimic[0]], "multiplier": mimic[1]}
            joints.append({"mimic": follows, "kind": kind, "origin": origin})
            continue
        name, low, high, speed = next(own)
        joint: dict[str, Any] = {"name": name, "kind": kind, "lower": low, "upper": high}
        joints.append(joint | ({"velocity": speed} if math.isfinite(speed) else {}) | {"origin": origin})
    return {
        "name": robot.name,
        "base_link": robot.base_link,
        "tip_link": robot.tip_link,
        "joints": joints,
        "tool": origins[-1],
        **({} if robot.body is None else {"body": robot.body.to_dict()}),
    }


def read_document(document: dict[str, Any], make: type[Robot]) -> Robot:
    """See `Robot.from_dict`."""
    try:
        frames = list(document["joints"])
        rows = [*(frame["origin"] for frame in frames), document["tool"]]
        joints = [frame for frame in frames if frame.get("mimic") is None]
        mimics = _read_mimics(frames, [joint["name"] for joint in joints])
        if any(len(row) != 12 for row in rows):
            raise RobotError(f"robot document: expected 12 numbers per transform, got {[len(row) for row in rows]}")
        names = [
            document["name"],
            document["base_link"],
            document["tip_link"],
            *(joint["name"] for joint in joints),
        ]
        velocity = [joint.get("velocity", math.inf) for joint in joints]
        limits = [joint[key] for joint in joints for key in ("lower", "upper")]
        numbers = [x for row in rows for x in row] + limits + velocity + [mimic[1] for mimic in mimics if mimic]
        # Neither True nor "1" is a number, though NumPy and float take them for one.
        for value, types in [(name, (str,)) for name in names] + [(x, (int, float)) for x in numbers]:
            if type(value) not in types:
                raise RobotError(
                    f"robot document: expected the types of Robot.to_dict, got {value!r:.60} for "
                    f"{' or '.join(kind.__name__ for kind in types)}; write it anew"
                )
        return make(
            name=document["name"],
            base_link=document["base_link"],
            tip_link=document["tip_link"],
            chain=Chain(
                origins=np.array(rows, dtype=np.float64).reshape(-1, 3, 4),
                kinds=tuple(frame["kind"] for frame in frames),
                mimics=mimics,
            ),
            joint_names=tuple(joint["name"] for joint in joints),
            lower=np.array([joint["lower"] for joint in joints], dtype=np.float64),
            upper=np.array([joint["upper"] for joint in joints], dtype=np.float64),
            body=None if document.get("body") is None else Body.from_dict(document["body"]),
            velocity=np.array(velocity, dtype=np.float64),
        )
    except KeyError as error:
        raise RobotError(f"robot document: expected key {error}, found none; write it with Robot.to_dict") from None
    except (TypeError, OverflowError) as error:
        raise RobotError(f"robot document: expected the types of Robot.to_dict, got {error}; write it anew") from None


def _read_mimics(frames: list[dict[str, Any]], names: list[str]) -> tuple[tuple[int, float] | None, ...]:
    """Return `Chain.mimics` of a document's joints, of which `names` have a name."""
    if len(names) == len(frames):
        return ()
    mimics: list[tuple[int, float] | None] = []
    for frame in frames:
        mimic = frame.get("mimic")
        if mimic is not None and mimic["joint"] not in names:
            raise RobotError(
                f"robot document: expected mimic joints of {names}, got one of {mimic['joint']!r:.60}; write it anew"
            )
        mimics.append(None if mimic is None else (names.index(mimic["joint"]), mimic["multiplier"]))
    return tuple(mimics)


def fingerprint(document: dict[str, Any]) -> str:
    """See `Robot.fingerprint`."""

    def rounded(values: list[float]) -> list[float]:
        return [round(value, FINGERPRINT_DECIMALS) + 0.0 for value in values]  # + 0.0 turns -0.0 into 0.0

    content = {
        "joints": [
            [joint["mimic"]["joint"], "mimic", joint["kind"]]
            + [rounded([joint["mimic"]["multiplier"], *joint["origin"]])]
            if "mimic" in joint
            else [joint["name"], joint["kind"], rounded([joint["lower"], joint["upper"], *joint["origin"]])]
            for joint in document["joints"]
        ],
        "tool": rounded(document["tool"]),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
