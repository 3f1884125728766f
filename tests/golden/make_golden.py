"""Write the golden set that holds PyTorch, TorchScript, ONNX and C++ together: python tests/golden/make_golden.py."""

import json
from pathlib import Path

import torch

from mfik.export.bundle import document, write_native
from mfik.model import SingleStep
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot

FOLDER = Path(__file__).parent
ROWS = 64


def main() -> None:
    torch.manual_seed(20240517)
    robot = load_robot("panda")
    model = MeanFlowNet(ModelConfig(dof=7, width=32, num_blocks=2, cond_dim=16, encoding_dim=8)).eval()
    for name, parameter in model.named_parameters():
        # Norm weights other than 1, biases other than 0: every tensor must matter. u comes out at about 0.3 rad.
        if "norm" in name or name.startswith("head"):
            torch.nn.init.normal_(parameter, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.1)
    generator = torch.Generator().manual_seed(1)
    q_ref = robot.sample(ROWS, generator)
    target_pose = robot.fk(robot.sample(ROWS, generator))
    target_pose[::2, 3:] *= -1  # both signs of the quaternion
    with torch.no_grad():
        q_solution = SingleStep(model)(q_ref, target_pose)
    write_native(FOLDER / "v1.safetensors", model, document(model, robot))
    golden = {
        name: [[float(f"{x:.9g}") for x in row] for row in rows.tolist()]  # float32 survives nine digits
        for name, rows in (("q_ref", q_ref), ("target_pose", target_pose), ("q_solution", q_solution))
    }
    lines = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in golden.items()]
    (FOLDER / "v1.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
