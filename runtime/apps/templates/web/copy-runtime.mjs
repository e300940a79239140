// Copies what the page needs of onnxruntime-web (150 MB with sources and maps) to ort/: two builds and the WebAssembly of each.
// `npm install` runs it. Afterwards the folder needs neither node_modules nor Node: any static web server will do.
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const from = new URL("node_modules/onnxruntime-web/dist/", import.meta.url);
const to = new URL("ort/", import.meta.url);

await mkdir(to, { recursive: true });
for (const build of ["ort.wasm.min.mjs", "ort.webgpu.min.mjs"]) {
  const source = await readFile(new URL(build, from), "utf8");
  const loader = source.match(/ort-wasm-simd-threaded[\w.]*\.mjs/)[0]; // its name differs between versions
  for (const name of [build, loader, loader.replace(/mjs$/, "wasm")]) await copyFile(new URL(name, from), new URL(name, to));
}
console.log(`onnxruntime-web copied to ${fileURLToPath(to)}`);
