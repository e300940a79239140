// From an image file to pixels. The browser only decodes: the resizing is in preprocess.mjs.
import { checkSize } from "./preprocess.mjs";

// Pixels as they are in the file, without colour management, turned upright as its EXIF says.
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };

/** Decode a File to RGB pixels, upright, on the background. Throws one line that says what is wrong with it. */
export async function readPixels(file, settings) {
  const { width, height } = await sizeOf(file);
  checkSize(file.name, width, height, settings);
  const bitmap = await decode(file);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${settings.background.join(" ")})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0); // transparent pixels show the background
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (data[3] !== 255) throw new Error(`${file.name}: ${width} x ${height} pixels are more than this browser's canvas holds`);
  return { data: withoutAlpha(data), width: canvas.width, height: canvas.height, channels: 3 };
}

/** Width and height, which an image element knows before it decodes anything. */
async function sizeOf(file) {
  const address = URL.createObjectURL(file);
  const image = new Image();
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(unreadable(file, "no image that this browser knows"));
      image.src = address;
    });
    return { width: image.naturalWidth, height: image.naturalHeight };
  } finally {
    URL.revokeObjectURL(address);
  }
}

async function decode(file) {
  try {
    return await createImageBitmap(file, AS_STORED);
  } catch (error) {
    throw unreadable(file, error.message);
  }
}

function unreadable(file, found) {
  return new Error(`${file.name}: expected a complete image file, got: ${found}`);
}

function withoutAlpha(rgba) {
  const rgb = new Uint8ClampedArray((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}
