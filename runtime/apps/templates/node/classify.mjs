// Classify images with model.onnx. Without arguments: check that sample.png gets the answer that it got at export.
// Usage: node classify.mjs [--json] [IMAGE ...]
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { checkSize, difference, prepare, ranking } from "./preprocess.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const readJson = async (name) => JSON.parse(await readFile(here(name), "utf8"));

/** Decode a file to RGB pixels, upright, on the background. Throws one line that says what is wrong with it. */
async function readPixels(path, settings) {
  try {
    const options = { limitInputPixels: false, failOn: "truncated", ignoreIcc: true }; // the size is checked here, before decoding
    const file = await readFile(path); // read by Node: its errors say what is wrong
    const { width, height } = await sharp(file, options).metadata();
    checkSize(path, width, height, settings);
    const [r, g, b] = settings.background;
    const image = sharp(file, options).autoOrient().toColourspace("srgb").flatten({ background: { r, g, b } });
    const { data, info } = await image.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height, channels: info.channels };
  } catch (error) {
    const message = String(error.message).split("\n")[0];
    throw new Error(message.startsWith(`${path}: `) ? message : `${path}: expected a complete image file, got: ${message}`);
  }
}

/** The model, and what it needs to know about images. */
class Classifier {
  static async load() {
    const settings = await readJson("settings.json");
    const session = await InferenceSession.create(here(settings.model), {
      executionProviders: ["cpu"],
      extra: { session: { x64quantprecision: "1" } }, // int8 without overflow on processors without VNNI
    });
    return Object.assign(new Classifier(), { settings, session });
  }

  /** RGB pixels -> the answers of the model, a Float32Array of one number per class. */
  async classify(pixels) {
    const { input, output } = this.settings;
    const { data, dims } = prepare(pixels, this.settings);
    const results = await this.session.run({ [input.name]: new Tensor(input.dtype, data, dims) });
    return results[output.name].data;
  }
}

async function report(classifier, path, asJson) {
  const pixels = await readPixels(path, classifier.settings);
  const start = performance.now();
  const answers = await classifier.classify(pixels);
  const milliseconds = performance.now() - start;
  const ranked = ranking(answers, classifier.settings);
  if (asJson) {
    console.log(JSON.stringify({ image: path, label: ranked[0].label, answers: Array.from(answers), milliseconds }));
    return;
  }
  console.log(`${path} (${milliseconds.toFixed(1)} ms)`);
  for (const { label, probability } of ranked.slice(0, 5)) {
    console.log(probability === null ? `  ${label}` : `  ${(100 * probability).toFixed(1).padStart(5)}%  ${label}`);
  }
}

async function check(classifier) {
  const expected = await readJson("expected.json");
  const answers = await classifier.classify(await readPixels(here(expected.image), classifier.settings));
  const [{ label }] = ranking(answers, classifier.settings);
  const error = difference(answers, expected.answers);
  const good = error <= classifier.settings.tolerance && label === expected.label;
  const verdict = good ? "ok" : "WRONG";
  console.log(`${expected.image}: ${label}, expected ${expected.label}; answers differ by ${error.toExponential(1)}: ${verdict}`);
  return good;
}

const words = process.argv.slice(2);
const images = words.filter((word) => word !== "--json");
const classifier = await Classifier.load();
if (images.length === 0) process.exitCode = (await check(classifier)) ? 0 : 1;
for (const path of images) {
  try {
    await report(classifier, path, words.includes("--json"));
  } catch (error) {
    console.error(`error: ${error.message}`);
    process.exitCode = 2;
  }
}
