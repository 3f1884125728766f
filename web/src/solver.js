// The worker that evaluates the graphs, so that the page draws and is dragged meanwhile.
import * as ort from "onnxruntime-web/wasm";

ort.env.wasm.numThreads = 1; // a row is too small to share
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", self.location).href };

const sessions = new Map();

/** Return the session of an arm, made the first time that it is asked for. */
function session(arm, graph) {
  if (!sessions.has(arm)) {
    sessions.set(arm, ort.InferenceSession.create(graph, { logSeverityLevel: 3 }));
  }
  return sessions.get(arm);
}

self.onmessage = async ({ data: { arm, graph, reference, pose } }) => {
  try {
    const network = await session(arm, graph);
    const inputs = {
      q_ref: new ort.Tensor("float32", reference, [1, reference.length]),
      target_pose: new ort.Tensor("float32", pose, [1, 7]),
    };
    const start = performance.now();
    const { q_solution } = await network.run(inputs);
    self.postMessage({ arm, pose, q: [...q_solution.data], ms: performance.now() - start });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
