// From decoded pixels to the model's input, as settings.json says. No dependency; Node and browsers share this file.
// Resizing is Pillow's to the last bit: antialiased filters, one pass per axis, integer weights, whole grey levels after each pass.

/**
 * @typedef {{data: Uint8Array | Uint8ClampedArray, width: number, height: number, channels: number}} Pixels
 * Interleaved, row by row.
 */

/** Throws where an image is larger than settings.json allows: decode nothing before this. */
export function checkSize(name, width, height, settings) {
  if (width * height > settings.max_pixels) {
    throw new Error(`${name}: expected at most ${settings.max_pixels.toLocaleString("en")} pixels, got ${width} x ${height}`);
  }
}

/** RGB pixels -> {data, dims} of the input tensor: uint8 [1, H, W, C] where the graph scales pixels itself, else float32 [1, C, H, W]. */
export function prepare(rgb, settings) {
  const pixels = cut(settings.channels === 1 ? grey(rgb) : rgb, settings.resizing);
  const { data, width, height, channels } = pixels;
  if (settings.input.dtype === "uint8") return { data: Uint8Array.from(data), dims: [1, height, width, channels] };
  const area = width * height;
  const scaled = new Float32Array(channels * area);
  for (let channel = 0; channel < channels; channel++) {
    const mean = settings.mean[channel];
    const std = settings.std[channel];
    for (let i = 0; i < area; i++) scaled[channel * area + i] = (data[i * channels + channel] / 255 - mean) / std;
  }
  return { data: scaled, dims: [1, channels, height, width] };
}

/** Answers -> [{label, probability}], the likeliest first; an embedding has no classes, so it is one entry without probability. */
export function ranking(answers, settings) {
  if (settings.answers === "embedding") return [{ label: `embedding of ${answers.length} values`, probability: null }];
  const probabilities = settings.answers === "probabilities" ? Array.from(answers) : softmax(answers);
  return probabilities
    .map((probability, index) => ({ label: settings.labels[index], probability }))
    .sort((a, b) => b.probability - a.probability);
}

/** Largest difference of two lists of answers, as a share of the largest expected one: what `tolerance` is about. */
export function difference(answers, expected) {
  const errors = expected.map((value, index) => Math.abs(answers[index] - value));
  return Math.max(...errors) / Math.max(...expected.map(Math.abs));
}

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Luma as Pillow computes it: integers, scaled by 2^16. */
function grey({ data, width, height, channels }) {
  const levels = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < levels.length; i++, at += channels) {
    levels[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
  }
  return { data: levels, width, height, channels: 1 };
}

/** The part of an image that the model sees, in its size. */
function cut(pixels, { fit, to, crop: [cropHeight, cropWidth], crop_rounding: rounding, interpolation }) {
  let [height, width] = to;
  const short = Math.min(pixels.width, pixels.height);
  const long = Math.max(pixels.width, pixels.height);
  let source = pixels;
  if (fit === "square") {
    // Cropped first, so that nothing outside the central square blends in.
    source = crop(pixels, Math.floor((pixels.width - short) / 2), Math.floor((pixels.height - short) / 2), short, short);
  } else if (fit === "shortest") {
    const rest = Math.floor((width * long) / short);
    if (pixels.width <= pixels.height) height = rest;
    else width = rest;
  }
  const resized = resize(source, width, height, interpolation);
  return crop(resized, offset(width - cropWidth, rounding), offset(height - cropHeight, rounding), cropWidth, cropHeight);
}

function offset(margin, rounding) {
  const down = Math.floor(margin / 2);
  return rounding === "even" && margin % 2 === 1 && down % 2 === 1 ? down + 1 : down;
}

function crop(pixels, left, top, width, height) {
  if (width === pixels.width && height === pixels.height) return pixels;
  const { channels } = pixels;
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * pixels.width + left) * channels;
    data.set(pixels.data.subarray(from, from + width * channels), y * width * channels);
  }
  return { data, width, height, channels };
}

function resize(pixels, width, height, interpolation) {
  const { channels } = pixels;
  const rows = width === pixels.width ? pixels : resizeAxis(pixels, width, interpolation, "x");
  return height === rows.height ? { ...rows, channels } : resizeAxis(rows, height, interpolation, "y");
}

/** One pass: every new pixel is a weighted sum of old ones along an axis. */
function resizeAxis({ data, width, height, channels }, size, interpolation, axis) {
  const along = axis === "x";
  const weights = filterWeights(along ? width : height, size, interpolation);
  const newWidth = along ? size : width;
  const newHeight = along ? height : size;
  const step = along ? channels : width * channels; // from one old pixel to the next along the axis
  const resized = new Uint8ClampedArray(newWidth * newHeight * channels); // clips
  let at = 0;
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const { first, taps } = weights[along ? x : y];
      const start = along ? (y * width + first) * channels : (first * width + x) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let tap = 0; tap < taps.length; tap++) sum += taps[tap] * data[start + tap * step + channel];
        resized[at++] = Math.floor(sum / ONE + 0.5); // exact: the sums stay far below 2^53
      }
    }
  }
  return { data: resized, width: newWidth, height: newHeight, channels };
}

const ONE = 2 ** 22; // the weight 1: Pillow's weights are integers

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (x) => {
      const a = -0.5;
      const d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};

/** For each new pixel: the first old one that it draws from, and the weights of that and the next ones. */
function filterWeights(oldSize, newSize, interpolation) {
  const scale = oldSize / newSize;
  if (interpolation === "nearest") {
    let centre = scale / 2;
    return Array.from({ length: newSize }, () => {
      const first = Math.min(oldSize - 1, Math.floor(centre));
      centre += scale; // added up as Pillow does: between two pixels, rounding errors decide
      return { first, taps: [ONE] };
    });
  }
  const { support, weight } = FILTERS[interpolation];
  const stretch = Math.max(1, scale); // a filter that shrinks is widened: that is the antialiasing
  return Array.from({ length: newSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support * stretch + 0.5));
    const last = Math.min(oldSize, Math.floor(centre + support * stretch + 0.5));
    const taps = Array.from({ length: last - first }, (_, tap) => weight((first + tap - centre + 0.5) / stretch));
    const sum = taps.reduce((a, b) => a + b, 0);
    return { first, taps: taps.map((tap) => Math.trunc((tap / sum) * ONE + (tap < 0 ? -0.5 : 0.5))) };
  });
}
