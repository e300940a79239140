// The page: shows what the classifier answers for images that are dropped, pasted or chosen, and checks the sample when it opens.
import { Classifier, fetchBytes, fetchJson } from "./classifier.js";
import { readPixels } from "./picture.js";
import { difference, ranking } from "./preprocess.mjs";

const TOP = 5;
const element = (id) => document.getElementById(id);
const provider = new URLSearchParams(location.search).get("provider") ?? "wasm";
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

let picture = null; // the address of the image that is shown

function say(id, text) {
  element(id).textContent = text;
}

function showError(error) {
  say("error", error.message);
  element("error").hidden = false;
}

function clear() {
  element("error").hidden = true;
  element("picture").hidden = true;
  element("answers").replaceChildren();
  say("timing", "");
}

function showPicture(file) {
  if (picture) URL.revokeObjectURL(picture);
  picture = URL.createObjectURL(file);
  const image = element("picture");
  image.onload = () => image.classList.toggle("small", image.naturalWidth < 200);
  image.src = picture;
  image.alt = file.name;
  image.hidden = false;
}

function bar({ label, probability }) {
  const entry = document.createElement("li");
  entry.style.setProperty("--share", probability ?? 0);
  const share = probability === null ? "" : percent.format(probability);
  for (const [name, text] of [["label", label], ["percent", share]]) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    entry.append(part);
  }
  return entry;
}

/** Classify a file and show the answer, or in one line why there is none. */
async function show(classifier, file) {
  clear();
  say("caption", file.name);
  try {
    const pixels = await readPixels(file, classifier.settings);
    showPicture(file);
    const { answers, milliseconds } = await classifier.classify(pixels);
    const first = performance.getEntriesByName("prediction").length === 0 ? ", the first run" : "";
    performance.measure("prediction", { start: performance.now() - milliseconds.model, duration: milliseconds.model });
    element("answers").replaceChildren(...ranking(answers, classifier.settings).slice(0, TOP).map(bar));
    say("timing", `Model ${milliseconds.model.toFixed(1)} ms${first}; image ${milliseconds.prepare.toFixed(1)} ms`);
    return answers;
  } catch (error) {
    showError(error);
    return null;
  }
}

/** Whether the sample gets the answer that it got at export, within what the model's precision allows. */
async function check(classifier) {
  const expected = await fetchJson("expected.json");
  const sample = new File([await fetchBytes(expected.image)], expected.image, { type: "image/png" });
  const answers = await show(classifier, sample);
  if (!answers) throw new Error(`${expected.image} has no answer`);
  const [{ label }] = ranking(answers, classifier.settings);
  const error = difference(answers, expected.answers);
  const good = error <= classifier.settings.tolerance && label === expected.label;
  const verdict = good ? `ok: ${label}, as at export` : `WRONG: ${label}, expected ${expected.label}`;
  judge(good, `${verdict}; answers differ by ${error.toExponential(1)}`);
}

function judge(good, text) {
  element("check").className = good ? "good" : "bad";
  say("check", text);
}

async function start() {
  element(provider)?.setAttribute("aria-current", "page");
  if (!navigator.gpu) {
    element("webgpu").removeAttribute("href");
    element("webgpu").title = "This browser has no WebGPU";
  }
  let bytes = 0;
  say("about", "Loading …");
  const classifier = await Classifier.load(provider, (more) => {
    bytes += more;
    if (!failed) say("about", `Loading the model: ${megabytes(bytes)} …`);
  });
  const seconds = performance.now() / 1000; // since the page was asked for
  performance.measure("ready", { start: 0 });
  const { settings } = classifier;
  document.title = settings.name;
  say("name", settings.name);
  say("about", `${settings.precision}, ${megabytes(bytes)}, ${settings.labels.length} classes`);
  say("running", classifier.running);
  say("ready", `${seconds.toFixed(2)} s after opening`);
  await check(classifier).catch((error) => judge(false, `not done: ${error.message}`));
  return classifier;
}

// Images wait their turn: for the model, and for those before them.
let failed = false;
let turn = start().catch((error) => {
  failed = true; // a download may still be under way
  say("about", "Not loaded");
  for (const id of ["running", "ready", "check"]) say(id, "—");
  showError(error);
  return null;
});

function take(files) {
  const file = [...files][0];
  if (!file) return;
  turn = turn.then(async (classifier) => {
    if (classifier) await show(classifier, file);
    return classifier;
  });
}

element("file").addEventListener("change", ({ target }) => {
  take(target.files);
  target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => element("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files);
});
