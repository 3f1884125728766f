// python scripts/export.py --model panda --refine 10 --errors --output panda
// npm ci --prefix examples/graphs
// node examples/graphs/node.mjs panda
import { readFile } from "node:fs/promises";
import { solve } from "./solve.mjs";

const bundle = process.argv[2];
const answers = await solve(await readFile(`${bundle}/model.onnx`), await readFile(`${bundle}/model.safetensors`));
console.log(answers.join("\n"));
