// The model in LiteRT.js: bytes in, probabilities out.

import { Tensor, loadAndCompile, loadLiteRt, supportsFeature } from "./litert/core.js";

import { probabilitiesOf } from "./answers.js";

/** Something that the person before the screen can understand, and perhaps mend. */
export class Said extends Error {}

async function fetched(path) {
  let response;
  try {
    response = await fetch(path);
  } catch {
    throw new Said(`${path} could not be loaded. Check that the server of this page is still running.`);
  }
  if (response.ok) return response;
  throw new Said(
    `${path} is missing in the folder of this page (HTTP status ${response.status}). ` +
      "Copy the whole folder, or export it again.",
  );
}

/** The bytes of a file; `onBytes` hears how many more have come. */
async function download(path, onBytes) {
  const reader = (await fetched(path)).body.getReader();
  const chunks = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    length += value.length;
    onBytes(value.length);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

async function description() {
  const response = await fetched("model.json");
  try {
    return await response.json();
  } catch {
    throw new Said("model.json is damaged. Export the folder again.");
  }
}

/** LiteRT's lines go to the console's debug level; through printErr they would look like errors. */
async function startRuntime(wasmBinary) {
  self.Module = { wasmBinary, print: console.debug, printErr: console.debug };
  try {
    await loadLiteRt("litert/");
  } catch (error) {
    throw new Said(`This browser cannot run LiteRT.js (${error.message}). Try a newer browser.`);
  }
}

async function compiled(bytes) {
  try {
    return await loadAndCompile(bytes, { accelerator: "wasm" });
  } catch (error) {
    throw new Said(`LiteRT.js cannot run model.tflite: ${error.message}`);
  }
}

export class Classifier {
  /**
   * @param model a CompiledModel of one image
   * @param about model.json
   */
  constructor(model, about) {
    const [input] = model.getInputDetails();
    const [output] = model.getOutputDetails();
    const [, height, width, channels] = input.shape;
    this.model = model;
    this.about = about;
    this.target = { width, height, channels, resize: about.resize };
    this.inputType = input.dtype;
    // A float32 file that someone put in the place of the exported one has no steps.
    this.step = output.dtype === "uint8" ? about.output.scale : 0;
    const classes = output.shape[1] === 1 ? 2 : output.shape[1];
    if (about.labels.length !== classes) {
      throw new Said(
        `model.json has ${about.labels.length} classes, but model.tflite has ${classes}. ` +
          "Use both files of the same export.",
      );
    }
  }

  /** What the model's input tensor takes for these bytes. */
  input(pixels) {
    if (this.inputType === "float32") return Float32Array.from(pixels);
    const { scale, zero_point } = this.about.input;
    const steps = (pixel) => Math.min(255, Math.max(0, Math.round(pixel / scale) + zero_point));
    return scale === 1 && zero_point === 0 ? pixels : pixels.map(steps);
  }

  /** Run the model once on `pixels` (Uint8Array, height × width × channels). */
  async run(pixels) {
    const { height, width, channels } = this.target;
    const began = performance.now();
    const tensor = new Tensor(this.input(pixels), [1, height, width, channels]);
    const [result] = await this.model.run([tensor]);
    const raw = Array.from(result.toTypedArray());
    const milliseconds = performance.now() - began;
    tensor.delete();
    result.delete();
    const { scale, zero_point, activation } = this.about.output;
    const scores = this.step ? raw.map((value) => (value - zero_point) * scale) : raw;
    return { probabilities: probabilitiesOf(scores, activation), milliseconds };
  }
}

/** The `count` likeliest classes, the first first. */
export function best(probabilities, count) {
  const order = probabilities.map((_, index) => index);
  order.sort((a, b) => probabilities[b] - probabilities[a]);
  return order.slice(0, count);
}

/**
 * Load runtime and model.
 *
 * @param onProgress hears the share that is loaded, 0…1, of how many bytes
 * @throws {Said} with words for people
 */
export async function load(onProgress) {
  if (typeof WebAssembly !== "object") {
    throw new Said(
      "The model needs WebAssembly, which is off or missing in this browser. " +
        "Try another browser, or turn off lockdown mode.",
    );
  }
  const about = await description();
  const relaxed = await supportsFeature("relaxedSimd");
  const runtime = `litert/litert_wasm_${relaxed ? "" : "compat_"}internal.wasm`;
  const total = about.bytes[runtime] + about.bytes["model.tflite"];
  let loaded = 0;
  const onBytes = (count) => onProgress((loaded += count) / total, total);
  const [wasm, bytes] = await Promise.all([
    download(runtime, onBytes),
    download("model.tflite", onBytes),
  ]);
  await startRuntime(wasm);
  const classifier = new Classifier(await compiled(bytes), about);
  const { height, width, channels } = classifier.target;
  await classifier.run(new Uint8Array(height * width * channels)); // the first run is slow
  return classifier;
}
