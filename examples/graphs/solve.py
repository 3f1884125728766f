"""Solve poses with a bundle's ONNX graph: NumPy and ONNX Runtime, no mfik.

python scripts/export.py --model panda --refine 10 --errors --output panda
python examples/graphs/solve.py panda/model.onnx
"""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
document = json.loads(session.get_modelmeta().custom_metadata_map["mfik"])
robot = document["robot"]
print(f"{robot['name']}: poses of {robot['tip_link']} in {robot['base_link']}")

# Two references and the poses [x, y, z, qw, qx, qy, qz] of the tool in the base frame, [m]; any number of rows will do.
q_ref = np.zeros((2, session.get_inputs()[0].shape[1]), dtype=np.float32)
pose = np.array([[0.4, 0.1, 0.5, 0, 1, 0, 0], [0.4, 0.1, 50, 0, 1, 0, 0]], dtype=np.float32)
q, pos_error, rot_error, inside = session.run(None, {"q_ref": q_ref, "target_pose": pose})
for joints, position, rotation, within in zip(q, pos_error, rot_error, inside, strict=True):
    solved = position < 1e-5 and rotation < 1e-5 and within
    print("solved" if solved else f"off by {position:.3g} m and {rotation:.3g} rad", joints.round(3).tolist())
