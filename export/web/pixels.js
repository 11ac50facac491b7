// From a picture to the pixels that the model takes, as `keras-resnet predict` makes them: resized to
// just cover `target.resize` of model.json with Pillow's filter (over all pixels that fall on one, in
// 22-bit integers), the middle cut out in whole pixels. A picture of the model's size stays as it is.
// A canvas has a filter of its own in every browser, and is only used to read pixels.

const BITS = 22; // Pillow's PRECISION_BITS for 8-bit pixels
const COLOURS = 3; // grey is made last, as `keras-resnet predict` does
const LARGEST = 2 ** 24; // pixels; iOS gives no canvas beyond it

// Pillow's: how far each reaches, in new pixels, and its weight at a distance of them.
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - x) },
  bicubic: {
    reach: 2,
    weight: (x) => {
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
};

/** Half of what is over, a half to even, as Python rounds. */
function margin(over) {
  const half = over / 2;
  return Number.isInteger(half) ? half : 2 * Math.round(half / 2);
}

/** How a picture is resized to just cover `resize`, and where `target` is cut out of it, in pixels. */
function covering(width, height, target) {
  if (width === target.width && height === target.height) return { left: 0, top: 0, x: 1, y: 1 };
  const { resize } = target;
  const isHigh = height * resize.width > width * resize.height;
  const rows = isHigh ? Math.floor((height * resize.width) / width) : resize.height;
  const columns = isHigh ? resize.width : Math.floor((width * resize.height) / height);
  const [left, top] = [margin(columns - target.width), margin(rows - target.height)];
  return { left, top, x: width / columns, y: height / rows };
}

/** The part of a picture that the model sees, in its pixels. */
export function middle(width, height, target) {
  const { left, top, x, y } = covering(width, height, target);
  const [right, bottom] = [(left + target.width) * x, (top + target.height) * y];
  return { left: left * x, top: top * y, right, bottom };
}

/** To a whole number as in C, a half away from zero. */
const rounded = (value) => Math.trunc(value + 0.5 * Math.sign(value));

/** For `count` new pixels from `offset` on, each `scale` old ones: the first of those, and weights. */
function taps(size, offset, scale, count, { reach, weight }) {
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  return Array.from({ length: count }, (_, i) => {
    const centre = (offset + i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), size);
    const weights = [];
    for (let x = first; x < last; x++) {
      weights.push(weight(Math.abs((x - centre + 0.5) * (1 / stretch))));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => rounded((w / sum) * 2 ** BITS)) };
  });
}

/**
 * The filter along one axis: `lines` of pixels, `pitch` numbers apart, their pixels `step` apart.
 * `target` clamps: bicubic goes beyond 0…255 at edges, and Pillow cuts that off after either axis.
 */
function pass(source, target, lines, from, to, along) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < along.length; i++) {
      const { first, weights } = along[i];
      for (let c = 0; c < COLOURS; c++) {
        let sum = 2 ** (BITS - 1);
        let at = line * from.pitch + first * from.step + c;
        for (const weight of weights) {
          sum += source[at] * weight;
          at += from.step;
        }
        target[line * to.pitch + i * to.step + c] = sum >> BITS;
      }
    }
  }
  return target;
}

/** Along the rows of `image` ({pixels, width, height, stride: numbers to a pixel}). */
function across(image, along) {
  const { pixels, width, height, stride } = image;
  const out = new Uint8ClampedArray(height * along.length * COLOURS);
  const from = { pitch: stride * width, step: stride };
  const to = { pitch: COLOURS * along.length, step: COLOURS };
  pass(pixels, out, height, from, to, along);
  return { pixels: out, width: along.length, height, stride: COLOURS };
}

/** Along its columns. */
function down(image, along) {
  const { pixels, width, stride } = image;
  const out = new Uint8ClampedArray(width * along.length * COLOURS);
  const from = { pitch: stride, step: stride * width };
  const to = { pitch: COLOURS, step: COLOURS * width };
  pass(pixels, out, width, from, to, along);
  return { pixels: out, width, height: along.length, stride: COLOURS };
}

/** Pillow's grey values ("L", in 16-bit integers) of RGB pixels. */
function grey(pixels) {
  return Uint8Array.from({ length: pixels.length / COLOURS }, (_, i) => {
    const [red, green, blue] = pixels.subarray(COLOURS * i, COLOURS * (i + 1));
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  });
}

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** The same picture with at most LARGEST pixels in its middle. */
function reduced(picture, width, height, area) {
  const factor = Math.sqrt((0.9 * LARGEST) / area);
  const canvas = canvasOf(Math.round(width * factor), Math.round(height * factor));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** What of the old pixels the new ones are made of: [from, to). */
function span(along) {
  const last = along[along.length - 1];
  return [along[0].first, last.first + last.weights.length];
}

/**
 * The pixels of a picture's middle, in the size of `target` ({width, height, channels, resize}).
 *
 * @param picture an ImageBitmap, canvas or video of `width` × `height`
 * @returns {Uint8Array} (height, width, channels), 0…255
 */
export function fit(picture, width, height, target) {
  const cover = covering(width, height, target);
  const filter = FILTERS[target.resize.interpolation];
  const x = taps(width, cover.left, cover.x, target.width, filter);
  const y = taps(height, cover.top, cover.y, target.height, filter);
  const [[left, right], [top, bottom]] = [span(x), span(y)];
  const area = (right - left) * (bottom - top);
  if (area > LARGEST) {
    const smaller = reduced(picture, width, height, area);
    return fit(smaller, smaller.width, smaller.height, target);
  }
  const canvas = canvasOf(right - left, bottom - top);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, -left, -top);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const from = (along, start) => along.map((tap) => ({ ...tap, first: tap.first - start }));
  const image = { pixels: data, width: canvas.width, height: canvas.height, stride: 4 };
  const { pixels } = down(across(image, from(x, left)), from(y, top));
  return target.channels === 1 ? grey(pixels) : new Uint8Array(pixels.buffer); // as LiteRT.js takes
}
