// From a picture to the pixels that the model takes, as `keras-resnet predict` makes them: the
// middle of the shorter side, resized with Pillow's bilinear filter (a triangle over all pixels that
// fall on one, in 22-bit integers). A canvas has a filter of its own in every browser, and is only
// used to read pixels.

const BITS = 22; // Pillow's PRECISION_BITS for 8-bit pixels
const LARGEST = 2 ** 24; // pixels; iOS gives no canvas beyond it

/** The middle of a picture with the proportions of `target`, in fractions of pixels. */
export function middle(width, height, target) {
  const given = width / height;
  const wanted = target.width / target.height;
  const w = given > wanted ? wanted * height : width;
  const h = given < wanted ? width / wanted : height;
  const [left, top] = [(width - w) / 2, (height - h) / 2];
  const [right, bottom] = [left + w, top + h].map(Math.fround); // Pillow's boxes are float32
  return { left: Math.fround(left), top: Math.fround(top), right, bottom };
}

/** For each of `count` new pixels: the first of `size` old ones that it is made of, and weights. */
function taps(size, start, end, count) {
  const scale = Math.fround(end - start) / count;
  const support = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
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

/**
 * Resize the part `box` of RGBA `pixels`, as Pillow's `Image.resize(size, BILINEAR, box)`.
 *
 * @param columnsFirst the order of the two passes; each rounds
 * @returns {Uint8Array} (height, width, channels) of `target`
 */
function resize(pixels, width, height, box, target, columnsFirst) {
  const { channels } = target;
  const image = { pixels, width, height, stride: 4 };
  const x = taps(width, box.left, box.right, target.width);
  const y = taps(height, box.top, box.bottom, target.height);
  const resized = columnsFirst
    ? across(down(image, y, channels), x, channels)
    : down(across(image, x, channels), y, channels);
  return resized.pixels;
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

/**
 * The pixels of a picture's middle, in the size of `target` ({width, height, channels}).
 *
 * @param picture an ImageBitmap, canvas or video of `width` × `height`
 * @returns {Uint8Array} (height, width, channels), 0…255
 */
export function fit(picture, width, height, target) {
  const box = middle(width, height, target);
  const [boxWidth, boxHeight] = [box.right - box.left, box.bottom - box.top];
  if (boxWidth * boxHeight > LARGEST) {
    const smaller = reduced(picture, width, height, boxWidth * boxHeight);
    return fit(smaller, smaller.width, smaller.height, target);
  }
  // The filter of the outermost pixels reaches beyond the box.
  const margin = Math.ceil(Math.max(boxWidth / target.width, boxHeight / target.height)) + 1;
  const left = Math.max(0, Math.floor(box.left - margin));
  const top = Math.max(0, Math.floor(box.top - margin));
  const right = Math.min(width, Math.ceil(box.right + margin));
  const bottom = Math.min(height, Math.ceil(box.bottom + margin));
  const canvas = canvasOf(right - left, bottom - top);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, -left, -top);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (target.channels === 1) grey(data);
  const inside = {
    left: box.left - left,
    top: box.top - top,
    right: box.right - left,
    bottom: box.bottom - top,
  };
  // As Pillow 13 chooses, for speed.
  const cut = { x: width - target.width, y: height - target.height };
  const columnsFirst = cut.y > 0 && cut.y > 2 * cut.x;
  return resize(data, canvas.width, canvas.height, inside, target, columnsFirst);
}
