"""Write the golden set that holds PyTorch, TorchScript, ONNX and C++ together: python tests/golden/make_golden.py."""

import json
from pathlib import Path

import torch

from mfik.export import document, write_native
from mfik.model import SingleStep, v1, v2
from mfik.robots import Robot, load_robot

FOLDER = Path(__file__).parent
ROWS = 64


def main() -> None:
    robot = load_robot("panda")
    torch.manual_seed(20240517)
    model = v1.MeanFlowNet(v1.ModelConfig(dof=7, width=32, num_blocks=2, cond_dim=16, encoding_dim=8)).eval()
    for name, parameter in model.named_parameters():
        # Norm weights other than 1, biases other than 0: every tensor must matter. u comes out at about 0.3 rad.
        if "norm" in name or name.startswith("head"):
            torch.nn.init.normal_(parameter, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.1)
    write("v1", model, robot, seed=1)
    model = v2.MeanFlowNet(v2.ModelConfig(dof=7, width=32, num_blocks=2, passes=4, starts=2), robot).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    # No target is turned from its state by pi to within 0.09 rad, where rounding of the features grows as 1 / sin.
    # Looks at near targets end before the others.
    write("v2", model, robot, seed=2, near=16)


def write(name: str, model: v1.MeanFlowNet | v2.MeanFlowNet, robot: Robot, seed: int, near: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    q_ref = robot.sample(ROWS, generator)
    q = robot.sample(ROWS, generator)
    q[:near] = robot.clamp(q_ref[:near] + 0.02)
    target_pose = robot.fk(q)
    target_pose[::2, 3:] *= -1  # both signs of the quaternion
    with torch.no_grad():
        q_solution = SingleStep(model)(q_ref, target_pose)
    write_native(FOLDER / f"{name}.safetensors", model, document(model, robot))
    golden = {
        key: [[float(f"{x:.9g}") for x in row] for row in rows.tolist()]  # float32 survives nine digits
        for key, rows in (("q_ref", q_ref), ("target_pose", target_pose), ("q_solution", q_solution))
    }
    lines = [f'"{key}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for key, rows in golden.items()]
    (FOLDER / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
