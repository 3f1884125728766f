// Solves poses with a bundle's ONNX graph: ONNX Runtime for JavaScript, no mfik. The same in Node and in a browser.
import * as ort from "onnxruntime-web/wasm";
import { frames, offBy, poseOf, readRobot } from "./kinematics.mjs";

ort.env.wasm.numThreads = 1; // a row is too small to share

/** Return lines to print, given the bytes of a bundle's model.onnx and of model.safetensors, which holds the robot. */
export async function solve(graph, native) {
  const session = await ort.InferenceSession.create(graph, { logSeverityLevel: 3 });
  const robot = readRobot(native);
  const lines = [`${robot.name}: poses of ${robot.tip_link} in ${robot.base_link}`];

  // Two references and two poses of the tool, one that the robot reaches and one 50 m above; any number will do.
  const middle = robot.joints.map(({ lower, upper }) => (lower + upper) / 2);
  const near = frames(robot, robot.joints.map(({ lower, upper }) => 0.35 * lower + 0.65 * upper)).at(-1);
  const wanted = [near, near.map((value, k) => (k === 11 ? value + 50 : value))];
  const answer = await session.run({
    q_ref: new ort.Tensor("float32", [...middle, ...middle], [2, middle.length]),
    target_pose: new ort.Tensor("float32", wanted.flatMap(poseOf), [2, 7]),
  });

  for (const i of [0, 1]) {
    const q = [...answer.q_solution.data.slice(i * middle.length, (i + 1) * middle.length)];
    const [metres, radians] = offBy(frames(robot, q).at(-1), wanted[i]);
    const [position, rotation] = [answer.pos_error.data[i], answer.rot_error.data[i]];
    if (!(Math.abs(metres - position) < 1e-5) || !(Math.abs(radians - rotation) < 1e-5)) {
      throw new Error(`not as expected: off by ${metres} m, ${radians} rad; the graph says ${position}, ${rotation}`);
    }
    const solved = metres < 1e-5 && radians < 1e-5 && answer.inside.data[i];
    const verdict = solved ? "solved" : `off by ${metres.toPrecision(3)} m and ${radians.toPrecision(3)} rad`;
    lines.push(`${verdict}: ${q.map((value) => value.toFixed(3)).join(" ")}`);
  }
  return lines;
}
