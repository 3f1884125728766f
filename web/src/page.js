// The page: asks the worker for an answer to the target, checks it by forward kinematics, and shows both.
import { frames, offBy, poseOf, transformOf } from "../../examples/graphs/kinematics.mjs";
import { Scene } from "./scene.js";

const ARMS = {
  panda: { label: "Panda", home: [0, -0.6, 0, -2.2, 0, 1.6, 0.8] },
  ur10: { label: "UR10", home: [0, -1.9, 2.1, -1.75, -1.57, 0] },
  tiago: { label: "TIAGo", home: [0.15, 0.7, -0.6, -1.2, 1.7, 0.9, 0.6, -1.1] },
};
const CIRCLE = { radius: 0.1, period: 4000 }; // [m], [ms]
const SOLVED = [0.001, 0.0175]; // [m], [rad]: what the eye does not see

const element = (id) => document.getElementById(id);
const read = async (name, as) => {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  return response[as]();
};

// Everything is fetched at once, and the page needs no network from then on.
const arms = {};
for (const [name, robot] of Object.entries(await read("robots.json", "json"))) {
  arms[name] = { ...ARMS[name], robot, graph: await read(`${name}.onnx`, "arrayBuffer") };
  element("arm").add(new Option(arms[name].label, name));
}

let name; // of the arm that is shown
let q; // its joints
let busy = false; // the worker has a question
let asked; // the pose of that question, or of the last
let center; // of the circle: pose and time when it was begun
const answers = []; // when they came, for a second

const scene = new Scene(element("scene"), () => {
  stopCircle();
  ask();
});
const worker = new Worker("solver.js", { type: "module" });

function ask() {
  if (busy) return;
  busy = true;
  asked = scene.pose();
  const reference = element("reference").value === "home" ? arms[name].home : q;
  worker.postMessage({ arm: name, graph: arms[name].sent ? undefined : arms[name].graph, reference, pose: asked });
  arms[name].sent = true;
}

worker.onmessage = ({ data }) => {
  busy = false;
  if (data.error) return fail(data.error);
  if (data.arm === name) {
    q = data.q;
    answers.push(performance.now());
    show(data);
    element("time").value = data.ms.toFixed(1);
  }
  follow();
  if (scene.pose().some((value, i) => value !== asked[i]) || data.arm !== name) ask();
};
worker.onerror = ({ message }) => fail(message);

function show({ pose }) {
  const found = frames(arms[name].robot, q);
  const [metres, radians] = offBy(found.at(-1), transformOf(pose));
  const solved = metres < SOLVED[0] && radians < SOLVED[1];
  element("position").value = figures(1000 * metres);
  element("rotation").value = figures((180 / Math.PI) * radians);
  element("verdict").textContent = solved ? "solved" : "not reached";
  element("verdict").classList.toggle("off", !solved);
  scene.show(found, solved);
  arms[name].robot.joints.forEach(({ lower }, j) => (element("joints").children[j].value = Math.max(q[j] - lower, 0)));
}

/** Return a number of two figures, without an exponent. */
function figures(value) {
  const decimals = value > 0 ? Math.max(1 - Math.floor(Math.log10(value)), 0) : 0;
  return value.toFixed(Math.min(decimals, 7));
}

function fail(error) {
  element("verdict").textContent = error;
  element("verdict").classList.add("off");
  throw new Error(error);
}

/** Move the target to where the circle has it now. */
function follow() {
  if (!center) return;
  const angle = (2 * Math.PI * (performance.now() - center.start)) / CIRCLE.period;
  const [x, y, z, ...quat] = center.pose;
  scene.place([x, y + CIRCLE.radius * Math.sin(angle), z + CIRCLE.radius * (Math.cos(angle) - 1), ...quat]);
}

function stopCircle() {
  center = undefined;
  element("circle").ariaPressed = "false";
}

function reset() {
  stopCircle();
  const { robot, home } = arms[name];
  q = home;
  const found = frames(robot, q);
  scene.show(found, true);
  scene.place(poseOf(found.at(-1)));
  ask();
}

function choose() {
  name = element("arm").value;
  const { robot } = arms[name];
  element("joints").replaceChildren(
    ...robot.joints.map((joint) => {
      const bar = document.createElement("progress");
      [bar.max, bar.title] = [joint.upper - joint.lower, joint.name];
      return bar;
    }),
  );
  scene.build(robot);
  reset();
}

element("arm").onchange = choose;
element("handle").onchange = () => scene.handle.setMode(element("handle").value);
element("reference").onchange = () => ask();
element("reset").onclick = reset;
element("random").onclick = () => {
  stopCircle();
  const joints = arms[name].robot.joints.map(({ lower, upper }) => lower + Math.random() * (upper - lower));
  scene.place(poseOf(frames(arms[name].robot, joints).at(-1)));
  ask();
};
element("circle").onclick = () => {
  if (center) return stopCircle();
  center = { pose: scene.pose(), start: performance.now() };
  element("circle").ariaPressed = "true";
  follow();
  ask();
};
setInterval(() => {
  while (answers[0] < performance.now() - 1000) answers.shift();
  element("rate").value = answers.length || "–";
}, 200);

choose();
globalThis.page = { scene, joints: () => q, idle: () => !busy }; // for the console
