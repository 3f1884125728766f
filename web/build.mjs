// Builds the page into web/dist: `npm run build`, or `npm run build -- panda` for some of the arms.
// PYTHON names a Python that has mfik; default: python.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { readRobot } from "../examples/graphs/kinematics.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const [dist, bundles] = [join(here, "dist"), join(here, "build")];
const python = process.env.PYTHON ?? "python";
const arms = process.argv.length > 2 ? process.argv.slice(2) : ["panda", "ur10", "tiago"];

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
const robots = {};
for (const arm of arms) {
  const bundle = join(bundles, arm);
  const options = ["--model", arm, "--refine", "10", "--output", bundle, "--overwrite"];
  execFileSync(python, [join(here, "..", "scripts", "export.py"), ...options], { stdio: "inherit" });
  cpSync(join(bundle, "model.onnx"), join(dist, `${arm}.onnx`));
  robots[arm] = readRobot(readFileSync(join(bundle, "model.safetensors")));
}
writeFileSync(join(dist, "robots.json"), JSON.stringify(robots));

await build({
  entryPoints: ["page.js", "solver.js"].map((name) => join(here, "src", name)),
  outdir: dist,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "linked",
});
const wasm = "ort-wasm-simd-threaded.wasm";
cpSync(join(here, "node_modules", "onnxruntime-web", "dist", wasm), join(dist, wasm));
for (const name of ["index.html", "page.css"]) {
  cpSync(join(here, "src", name), join(dist, name));
}
