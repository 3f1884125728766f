"""What a program that uses mfik writes; test_typing.py checks its types, it is not run."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from mfik.data import generate
from mfik.errors import ArgumentError, BundleError, MfikError, RobotError
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import PRESETS, Robot, load_robot
from mfik.solve import Options, Result, Seed, Solver, Status, model_path, pretrained_names
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, load_model, plot_run


def solve(path: Path) -> np.ndarray:
    solver: Solver = Solver.load(path, load_robot("panda"))
    solvers: list[Solver] = [Solver.pretrained(name) for name in pretrained_names()] + [Solver.load(model_path("ur10"))]
    robot: Robot = solvers[0].robot
    joints: int = solver.dof + robot.dof
    pose = [0.3, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0]
    q_ref = np.zeros(joints)
    result: Result = solver.solve(pose, q_ref, tol_pos=1e-6, seed=Seed.NETWORK, locked=[2], slack=[0.0] * 5 + [np.inf])
    status: Status = result.status
    error: float = max(result.pos_error, result.rot_error, result.time_us)
    if status == Status.SOLVED and error < 1.0:
        result = solver.track(pose, result.q, max_step=0.01)
    text: str = solver.explain(result) + result.reason
    different: np.ndarray = solver.solve_all(pose, n=8, q_ref=q_ref, min_distance=0.2).q
    batch = solver.solve_batch(np.tile(pose, (3, 1)), np.tile(q_ref, (3, 1)), threads=2, time_each=False)
    print(text, different.shape, batch.q.shape, (batch.status == Status.SOLVED).sum())
    return result.q


def describe(urdf: str) -> Solver:
    robot: Robot = load_robot(urdf, base_link="base", tip_link="tool")
    names: tuple[str, ...] = robot.joint_names
    try:
        options = Options(tol_pos=1e-4, max_attempts=8, nearest=True)
        print(names, PRESETS, options.tol_rot)
        return Solver.from_robot(robot)
    except (RobotError, BundleError, ArgumentError) as error:
        raise MfikError(str(error)) from error


def train(output: Path) -> dict[str, float]:
    config = TrainConfig.panda_default()
    config.learning_rate = 3e-3
    network = MeanFlowNet(ModelConfig.panda_tiny())
    parameters: int = network.num_parameters()
    trainer = MeanFlowTrainer(model=network, config=config)
    metrics: dict[str, float] = {}
    for batch in DataLoader(generate(load_robot("panda"), 1024), batch_size=config.batch_size, shuffle=True):
        metrics = trainer.train_step(batch)
        trainer.global_step += 1
    q, pose, time = torch.zeros(1, 7), torch.zeros(1, 7), torch.zeros(1, 1)
    u: torch.Tensor = network(q, pose, time, time + 1)
    plot_run(output)
    print(parameters, u, load_model(output / "checkpoints" / "final_model.pth"))
    return metrics
