// The model in the browser: what to copy into your own page, with picture.js and preprocess.mjs.
//   const classifier = await Classifier.load();
//   const { answers } = await classifier.classify(await readPixels(file, classifier.settings));
//   ranking(answers, classifier.settings)[0].label
import { prepare } from "./preprocess.mjs";

const BUILDS = { wasm: "./ort/ort.wasm.min.mjs", webgpu: "./ort/ort.webgpu.min.mjs" };
const MOST_THREADS = 8;
const ERRORS = 3; // of ONNX Runtime's levels of logging
const FATAL = 4;

/** The bytes of a file beside this one. `received(bytes)` is told of each piece. Throws one line that names the file. */
export async function fetchBytes(name, received = () => {}) {
  const response = await fetch(new URL(name, import.meta.url)).catch((error) => {
    throw new Error(`${name}: ${error.message}`);
  });
  if (!response.ok) throw new Error(`${name}: expected a file, got HTTP ${response.status} ${response.statusText}`);
  const pieces = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    received(value.length);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

export async function fetchJson(name) {
  return JSON.parse(new TextDecoder().decode(await fetchBytes(name)));
}

/** The model, and what it needs to know about images. */
export class Classifier {
  /**
   * @param {"wasm" | "webgpu"} provider what runs the model. None takes another's place: where it cannot, this throws.
   * @param {(bytes: number) => void} [received] told of each piece of the model.
   */
  static async load(provider = "wasm", received = undefined) {
    if (!(provider in BUILDS)) throw new Error(`provider: expected wasm or webgpu, got ${provider}`);
    const settings = await fetchJson("settings.json");
    const [ort, model, ...weights] = await Promise.all([
      importRuntime(provider),
      ...[settings.model, ...settings.external_data].map((name) => fetchBytes(name, received)),
    ]);
    const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
    const options = {
      externalData: weights.map((data, index) => ({ path: settings.external_data[index], data })),
      freeDimensionOverrides: batchOfOne(settings.input.shape[0]),
    };
    const { session, running } = await createSession(ort, provider, threads, model, options);
    return Object.assign(new Classifier(), { ort, settings, session, running });
  }

  /**
   * RGB pixels -> the answers of the model, a Float32Array of one number per class, and how long the two steps took.
   * One at a time: wait for an answer before the next call.
   */
  async classify(pixels) {
    const { input, output } = this.settings;
    const start = performance.now();
    const { data, dims } = prepare(pixels, this.settings);
    const prepared = performance.now();
    const results = await this.session.run({ [input.name]: new this.ort.Tensor(input.dtype, data, dims) });
    const answers = results[output.name].data;
    return { answers, milliseconds: { prepare: prepared - start, model: performance.now() - prepared } };
  }
}

async function importRuntime(provider) {
  try {
    return await import(BUILDS[provider]);
  } catch (error) {
    throw new Error(`${BUILDS[provider]}: expected onnxruntime-web there, got: ${error.message}. Run npm install, or node copy-runtime.mjs after it.`);
  }
}

/** A graph for any number of images is told that it gets one: what it computes of shapes is then done when it loads. */
function batchOfOne(batch) {
  return typeof batch === "string" ? { [batch]: 1 } : {};
}

/** A session, and in words what it runs on: asked of ONNX Runtime, not assumed. */
async function createSession(ort, provider, threads, model, options) {
  const create = (logSeverityLevel, extra) =>
    ort.InferenceSession.create(model, { ...options, executionProviders: [provider], logSeverityLevel, extra });
  const wasm = `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
  try {
    if (provider === "wasm") return { session: await create(ERRORS), running: wasm };
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("this browser offers no GPU to this page: choose WebAssembly");
    const gpu = `WebGPU (${[adapter.info.vendor, adapter.info.architecture].filter(Boolean).join(" ")})`;
    try {
      // Refused by ONNX Runtime where it would leave a single operator to WebAssembly; it need not say so on the console.
      return { session: await create(FATAL, { session: { disable_cpu_ep_fallback: "1" } }), running: gpu };
    } catch {
      return { session: await create(ERRORS), running: `${gpu}, some operators on ${wasm}` };
    }
  } catch (error) {
    throw new Error(`onnxruntime-web cannot run the model with ${provider}: ${String(error.message).split("\n")[0]}`);
  }
}
