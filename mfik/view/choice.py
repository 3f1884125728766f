"""Which solver the viewer shows, from what the command line says."""

from __future__ import annotations

import os

from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.robots import load_robot
from mfik.solve import Solver, model_path, pretrained_names


def choose_solver(
    robot: str | None = None,
    model: str | None = None,
    base_link: str | None = None,
    tip_link: str | None = None,
    spheres: str | os.PathLike[str] | None = None,
) -> Solver:
    """Load a model for a robot, or make a solver without a network where there is no model.

    Args:
        robot: A preset or the path of a URDF file; default the model's robot, without a model "panda".
        model: A bundle, or one of `pretrained_names()`; default the pretrained model of the same chain and limits.
        base_link: First link of the chain; default the model's.
        tip_link: Last link of the chain; default the model's.
        spheres: File of the robot's spheres, as of `load_robot`: the solver is then without a network.

    Raises:
        ArgumentError: `spheres` is given with a model, or for no robot.
        BundleError: The bundle cannot be read, or is for another robot.
        RobotError: The robot cannot be read.
    """
    if spheres is not None:
        if model is not None or robot is None:
            raise ArgumentError("--spheres: expected --robot and no --model, whose bundle has its own; give --robot")
        return Solver.from_robot(load_robot(robot, base_link, tip_link, spheres=spheres))
    if model is not None:
        solver = Solver.load(model_path(model))
        if robot is None:
            return solver
        own = load_robot(robot, base_link or solver.robot.base_link, tip_link or solver.robot.tip_link)
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
            own = load_robot(robot, base_link or solver.robot.base_link, tip_link or solver.robot.tip_link)
        except RobotError:
            continue  # the file has no such links
        if own.fingerprint() == solver.robot.fingerprint():
            return solver
    return Solver.from_robot(load_robot(robot, base_link, tip_link))
