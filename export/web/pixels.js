// From a picture to the pixels that the model takes, as `keras-resnet predict` makes them: the
// middle of the shorter side, resized with Pillow's bilinear filter (a triangle over all pixels that
// fall on one, in 22-bit integers, first along rows, then along columns). A canvas has a filter of
// its own in every browser, and is only used to read pixels.

const BITS = 22; // Pillow's PRECISION_BITS for 8-bit pixels
const LARGEST = 2 ** 24; // pixels; iOS gives no canvas beyond it

/** The middle of a picture with the proportions of `target`, in (fractional) pixels. */
export function middle(width, height, target) {
  const given = width / height;
  const wanted = target.width / target.height;
  const w = given > wanted ? wanted * height : width;
  const h = given < wanted ? width / wanted : height;
  return { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h };
}

/** For each of `count` new pixels: the first of `size` old ones that it is made of, and weights. */
function taps(size, start, length, count) {
  const scale = length / count;
  const support = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), size);
    const weights = [];
    for (let x = first; x < end; x++) {
      weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / support))));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => Math.trunc(0.5 + (w / sum) * 2 ** BITS)) };
  });
}

/** One pass of the filter over `lines` of pixels, which lie `step` and `pitch` bytes apart. */
function pass(source, target, lines, from, to, along, channels) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < along.length; i++) {
      const { first, weights } = along[i];
      for (let c = 0; c < channels; c++) {
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
}

/**
 * Resize the part `box` of RGBA `pixels`, as Pillow's `Image.resize(size, BILINEAR, box)`.
 *
 * @returns {Uint8Array} (height, width, channels) of `target`
 */
export function resize(pixels, width, height, box, target) {
  const channels = target.channels;
  const across = taps(width, box.left, box.width, target.width);
  const down = taps(height, box.top, box.height, target.height);
  const pitch = target.width * channels;
  const rows = new Uint8Array(height * pitch);
  const out = new Uint8Array(target.height * pitch);
  const rgba = { pitch: 4 * width, step: 4 };
  pass(pixels, rows, height, rgba, { pitch, step: channels }, across, channels);
  const column = { pitch: channels, step: pitch };
  pass(rows, out, target.width, column, column, down, channels);
  return out;
}

/** Put Pillow's grey value ("L", in 16-bit integers) into the first channel of RGBA pixels. */
function grey(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const sum = pixels[i] * 19595 + pixels[i + 1] * 38470 + pixels[i + 2] * 7471;
    pixels[i] = (sum + 0x8000) >> 16;
  }
}

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** The same picture with at most LARGEST pixels in its middle. */
function reduced(picture, width, height, box) {
  const factor = Math.sqrt((0.9 * LARGEST) / (box.width * box.height));
  const canvas = canvasOf(Math.round(width * factor), Math.round(height * factor));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * The pixels of a picture's middle, in the size of `target` ({width, height, channels}).
 *
 * @param picture an ImageBitmap, canvas or video of `width` × `height`
 * @returns {Uint8Array} (height, width, channels), 0…255
 */
export function fit(picture, width, height, target) {
  const box = middle(width, height, target);
  if (box.width * box.height > LARGEST) {
    const smaller = reduced(picture, width, height, box);
    return fit(smaller, smaller.width, smaller.height, target);
  }
  // The filter of the outermost pixels reaches beyond the box.
  const margin = Math.ceil(Math.max(box.width / target.width, box.height / target.height)) + 1;
  const left = Math.max(0, Math.floor(box.left - margin));
  const top = Math.max(0, Math.floor(box.top - margin));
  const right = Math.min(width, Math.ceil(box.left + box.width + margin));
  const bottom = Math.min(height, Math.ceil(box.top + box.height + margin));
  const canvas = canvasOf(right - left, bottom - top);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, -left, -top);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (target.channels === 1) grey(data);
  const inside = { ...box, left: box.left - left, top: box.top - top };
  return resize(data, canvas.width, canvas.height, inside, target);
}
