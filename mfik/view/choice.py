"""Which solver the viewer shows, from what the command line says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.robots import Robot, load_robot
from mfik.solve import Solver, model_path, pretrained_names


def choose_solver(
    robot: str | None = None,
    model: str | None = None,
    base_link: str | None = None,
    tip_link: str | None = None,
    spheres: str | os.PathLike[str] | None = None,
    *,
    group: str | None = None,
    srdf: str | os.PathLike[str] | None = None,
    xacro_args: Mapping[str, Any] | None = None,
    package_paths: Iterable[str | os.PathLike[str]] = (),
) -> Solver:
    """Load a model for a robot, or make a solver without a network where there is no model.

    Args:
        robot: As of `load_robot`, like the last four; default the model's robot, without a model "panda".
        model: A bundle, or one of `pretrained_names()`; default the pretrained model of the same chain and limits.
        base_link: First link of the chain; default the group's or the model's.
        tip_link: Last link of the chain, likewise.
        spheres: File of the robot's spheres, as of `load_robot`: the solver is then without a network.
        group: Planning group of `srdf`.
        srdf: SRDF file.
        xacro_args: Values of the arguments of a .xacro file.
        package_paths: Folders that hold packages.

    Raises:
        ArgumentError: `spheres` is given with a model, or for no robot.
        BundleError: The bundle cannot be read, or is for another robot.
        RobotError: The robot cannot be read.
    """
    load = partial(load_robot, group=group, srdf=srdf, xacro_args=xacro_args, package_paths=package_paths)

    def load_for(solver: Solver, robot: str) -> Robot:
        """Load the robot from and to the links of a solver's, unless others are given."""
        ends = (None, None) if group else (solver.robot.base_link, solver.robot.tip_link)
        return load(robot, base_link or ends[0], tip_link or ends[1])

    if spheres is not None:
        if model is not None or robot is None:
            raise ArgumentError("--spheres: expected --robot and no --model, whose bundle has its own; give --robot")
        return Solver.from_robot(load(robot, base_link, tip_link, spheres=spheres))
    if model is not None:
        solver = Solver.load(model_path(model))
        if robot is None:
            return solver
        own = load_for(solver, robot)
        if own.fingerprint() != solver.robot.fingerprint():
            raise BundleError(
                f"--model {model}: expected a model of the chain and limits of {robot}, got one of "
                f"'{solver.robot.name}' ({solver.robot.base_link} -> {solver.robot.tip_link}); train one for this robot"
            )
        return solver
    robot = robot or "panda"
    for name in pretrained_names():
        solver = Solver.pretrained(name)
        try:
            own = load_for(solver, robot)
        except RobotError:
            continue  # the file has no such links
        if own.fingerprint() == solver.robot.fingerprint():
            return solver
    return Solver.from_robot(load(robot, base_link, tip_link))
