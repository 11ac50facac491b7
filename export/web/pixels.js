// From a picture to the pixels that the model takes, as `keras-resnet predict` makes them: resized to
// just cover the model's size with Pillow's bilinear filter (a triangle over all pixels that fall on
// one, in 22-bit integers), the middle cut out in whole pixels. A canvas has a filter of its own in every browser, and is only
// used to read pixels.

const BITS = 22; // Pillow's PRECISION_BITS for 8-bit pixels
const LARGEST = 2 ** 24; // pixels; iOS gives no canvas beyond it

/** Half of what is over, a half to even, as Python rounds. */
function margin(over) {
  const half = over / 2;
  return Number.isInteger(half) ? half : 2 * Math.round(half / 2);
}

/** How a picture is resized to just cover `target`, and where that is cut out of it, in pixels. */
function covering(width, height, target) {
  const isHigh = height * target.width > width * target.height;
  const rows = isHigh ? Math.floor((height * target.width) / width) : target.height;
  const columns = isHigh ? target.width : Math.floor((width * target.height) / height);
  const [left, top] = [margin(columns - target.width), margin(rows - target.height)];
  return { left, top, x: width / columns, y: height / rows };
}

/** The part of a picture that the model sees, in its pixels. */
export function middle(width, height, target) {
  const { left, top, x, y } = covering(width, height, target);
  const [right, bottom] = [(left + target.width) * x, (top + target.height) * y];
  return { left: left * x, top: top * y, right, bottom };
}

/** For `count` new pixels from `offset` on, each `scale` old ones: the first of those, and weights. */
function taps(size, offset, scale, count) {
  const support = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = (offset + i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), size);
    const weights = [];
    for (let x = first; x < last; x++) {
      weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / support))));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => Math.trunc(0.5 + (w / sum) * 2 ** BITS)) };
  });
}

/** The filter along one axis: `lines` of pixels, `pitch` numbers apart, their pixels `step` apart. */
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
  return target;
}

/** Along the rows of `image` ({pixels, width, height, stride: numbers to a pixel}). */
function across(image, along, channels) {
  const { pixels, width, height, stride } = image;
  const out = new Uint8Array(height * along.length * channels);
  const from = { pitch: stride * width, step: stride };
  const to = { pitch: channels * along.length, step: channels };
  pass(pixels, out, height, from, to, along, channels);
  return { pixels: out, width: along.length, height, stride: channels };
}

/** Along its columns. */
function down(image, along, channels) {
  const { pixels, width, stride } = image;
  const out = new Uint8Array(width * along.length * channels);
  const from = { pitch: stride, step: stride * width };
  const to = { pitch: channels, step: channels * width };
  pass(pixels, out, width, from, to, along, channels);
  return { pixels: out, width, height: along.length, stride: channels };
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
function reduced(picture, width, height, area) {
  const factor = Math.sqrt((0.9 * LARGEST) / area);
  const canvas = canvasOf(Math.round(width * factor), Math.round(height * factor));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** What of the old pixels the new ones are made of: [from, to). */
function reach(along) {
  const last = along[along.length - 1];
  return [along[0].first, last.first + last.weights.length];
}

/**
 * The pixels of a picture's middle, in the size of `target` ({width, height, channels}).
 *
 * @param picture an ImageBitmap, canvas or video of `width` × `height`
 * @returns {Uint8Array} (height, width, channels), 0…255
 */
export function fit(picture, width, height, target) {
  const cover = covering(width, height, target);
  const x = taps(width, cover.left, cover.x, target.width);
  const y = taps(height, cover.top, cover.y, target.height);
  const [[left, right], [top, bottom]] = [reach(x), reach(y)];
  const area = (right - left) * (bottom - top);
  if (area > LARGEST) {
    const smaller = reduced(picture, width, height, area);
    return fit(smaller, smaller.width, smaller.height, target);
  }
  const canvas = canvasOf(right - left, bottom - top);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, -left, -top);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const { channels } = target;
  if (channels === 1) grey(data);
  const from = (along, start) => along.map((tap) => ({ ...tap, first: tap.first - start }));
  const image = { pixels: data, width: canvas.width, height: canvas.height, stride: 4 };
  return down(across(image, from(x, left), channels), from(y, top), channels).pixels;
}
