// A static web server for this folder, on this machine only. Usage: node serve.mjs [PORT]
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL(".", import.meta.url));
const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".mjs": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".wasm": "application/wasm",
};
// The two Cross-Origin headers are what browsers ask for before they let WebAssembly use more than one thread.
const HEADERS = {
  "Cache-Control": "no-cache",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Opener-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

/** The file of a request and its size, or null where there is none in this folder. */
async function find(url) {
  try {
    const path = resolve(ROOT, `.${decodeURIComponent(new URL(url, "http://localhost").pathname)}`);
    const file = path + sep === ROOT || path === ROOT ? resolve(ROOT, "index.html") : path;
    const entry = file.startsWith(ROOT) ? await stat(file) : null;
    return entry?.isFile() ? { file, size: entry.size } : null;
  } catch {
    return null; // not there, or no address that could be
  }
}

const server = createServer(async (request, response) => {
  const found = request.method === "GET" || request.method === "HEAD" ? await find(request.url) : null;
  if (!found) {
    response.writeHead(404, { ...HEADERS, "Content-Type": "text/plain" }).end("not found\n");
    return;
  }
  const type = TYPES[extname(found.file)] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
  if (request.method === "HEAD") response.end();
  else createReadStream(found.file).on("error", () => response.destroy()).pipe(response);
});

const port = Number(process.argv[2] ?? 8080);
server.on("error", (error) => {
  console.error(`error: ${error.code === "EADDRINUSE" ? `port ${port} is taken: node serve.mjs PORT` : error.message}`);
  process.exitCode = 2;
});
if (Number.isInteger(port) && port >= 0 && port < 65536) {
  server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
} else {
  console.error(`error: expected a port, got ${process.argv[2]}`);
  process.exitCode = 2;
}
