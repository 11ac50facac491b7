// The page: pictures in (dropped, pasted, chosen, from the camera), bars out.

import { Said, best, load } from "./classifier.js";
import { fit, middle } from "./pixels.js";

const TOP = 5;
const TIMING = { milliseconds: 150, runs: 9 }; // of a single picture, as far as both reach
const FRAMES = 15; // of the camera that the shown latency is the median of

const element = Object.fromEntries(
  Array.from(document.querySelectorAll("[id]"), (node) => [node.id, node]),
);

let stream = null; // of the camera
let starting = false;

function say(text, failed = false) {
  if (element.status.textContent === text) return; // or it would be read out again
  element.status.textContent = text;
  element.status.className = failed ? "failure" : "";
}

function complain(error) {
  if (!(error instanceof Said)) console.error(error);
  say(error instanceof Said ? error.message : `An unexpected error occurred: ${error.message}. Reload the page.`, true);
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function onProgress(share, total) {
  if (element.progress.hidden) return; // the other download has failed
  element.progress.value = share;
  say(`Loading the model and its runtime, ${megabytes(total)}…`);
}

/** Loaded once; also what a test asks. */
export const loading = load(onProgress);

// Answers -----------------------------------------------------------------------------------------

/** A quantized file says 0 for everything below half a step. */
function percent(probability, step) {
  if (probability === 0 && step) return `< ${(50 * step).toFixed(1)} %`;
  return `${(100 * probability).toFixed(1)} %`;
}

function row(label, probability, step) {
  const item = document.createElement("li");
  const bar = document.createElement("div");
  const [name, number] = [document.createElement("span"), document.createElement("span")];
  bar.className = "bar";
  bar.style.width = `${100 * probability}%`;
  name.textContent = label;
  number.className = "number";
  number.textContent = percent(probability, step);
  item.dataset.probability = probability;
  item.append(bar, name, number);
  return item;
}

/** Rows for the likeliest classes. */
function showAnswers(classifier, probabilities) {
  const rows = best(probabilities, TOP).map((index) =>
    row(classifier.about.labels[index], probabilities[index], classifier.step),
  );
  element.answers.replaceChildren(...rows);
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function showLatency(classifier, times) {
  const { width, height } = classifier.target;
  const how = times.length > 1 ? `, median of ${times.length} runs` : "";
  element.facts.textContent =
    `${median(times).toFixed(1)} ms${how}, on one thread · ${width} × ${height} pixels, ` +
    `${classifier.inputType} · model of ${megabytes(classifier.about.bytes["model.tflite"])}`;
}

/** A small picture of the model's input. */
function showPixels({ width, height, channels }, pixels) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + (channels > 1 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  Object.assign(element.pixels, { width, height });
  element.pixels.getContext("2d").putImageData(image, 0, 0);
  element.seen.hidden = false;
}

// Pictures ----------------------------------------------------------------------------------------

/** The middle that is looked at, as large as the screen has use for. */
function showPicture(bitmap, target) {
  const box = middle(bitmap.width, bitmap.height, target);
  const [boxWidth, boxHeight] = [box.right - box.left, box.bottom - box.top];
  const scale = Math.min(1, 1024 / Math.max(boxWidth, boxHeight));
  const [width, height] = [boxWidth * scale, boxHeight * scale].map(Math.ceil);
  Object.assign(element.shown, { width, height });
  const context = element.shown.getContext("2d");
  context.drawImage(bitmap, box.left, box.top, boxWidth, boxHeight, 0, 0, width, height);
  element.hint.hidden = true;
  element.shown.hidden = false;
  element.stage.classList.add("filled");
}

/** The camera's picture, enlarged until little more than that middle is seen. */
function showVideo({ videoWidth: width, videoHeight: height }, target) {
  const box = middle(width, height, target);
  const scale = Math.min(width / (box.right - box.left), height / (box.bottom - box.top));
  element.video.style.transform = `scale(${scale})`;
  element.hint.hidden = element.shown.hidden = true;
  element.video.hidden = false;
  element.stage.classList.add("filled");
}

/** Back to the empty page. */
function clear() {
  for (const name of ["shown", "video", "seen"]) element[name].hidden = true;
  element.hint.hidden = false;
  element.stage.classList.remove("filled");
  element.answers.replaceChildren();
  element.facts.textContent = "";
}

async function decoded(blob) {
  try {
    // As Pillow reads it: upright, colours as they are stored.
    return await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    const name = blob.name ? `“${blob.name}”` : "This file";
    throw new Said(`${name} is not a picture that this browser can read. Try a JPEG or PNG file.`);
  }
}

async function timed(classifier, pixels) {
  const times = [];
  let spent = 0;
  let result;
  do {
    result = await classifier.run(pixels);
    times.push(result.milliseconds);
    spent += result.milliseconds;
  } while (times.length < TIMING.runs && spent < TIMING.milliseconds);
  return { probabilities: result.probabilities, times };
}

/** Answer for one file; what went wrong is said on the page. */
async function classify(blob) {
  stopCamera();
  element.file.value = ""; // so that the same file can be chosen again
  try {
    const classifier = await loading;
    say("Classifying…");
    const bitmap = await decoded(blob);
    showPicture(bitmap, classifier.target);
    const pixels = fit(bitmap, bitmap.width, bitmap.height, classifier.target);
    bitmap.close();
    showPixels(classifier.target, pixels);
    const { probabilities, times } = await timed(classifier, pixels);
    showAnswers(classifier, probabilities);
    showLatency(classifier, times);
    say("Most likely:");
  } catch (error) {
    clear();
    complain(error);
  }
}

// Camera ------------------------------------------------------------------------------------------

const CAMERA_ERRORS = {
  NotAllowedError: "The browser does not allow the camera. Allow it in the browser's settings for this page.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Said("The camera needs https:// or localhost, but this page was loaded over http://.");
  }
  try {
    const size = { width: { ideal: 640 }, height: { ideal: 480 } };
    const video = { facingMode: { ideal: "environment" }, ...size };
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    throw new Said(CAMERA_ERRORS[error.name] ?? `The camera did not start: ${error.message}`);
  }
}

function showCamera(on) {
  element.camera.setAttribute("aria-pressed", String(on));
  element.camera.textContent = on ? "Stop the camera" : "Use the camera";
  element.answers.ariaLive = on ? "off" : "polite"; // nobody wants 30 answers a second read out
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  element.video.srcObject = null;
  showCamera(false);
  clear();
  say("The camera is off.");
}

async function watch(classifier, watched) {
  const times = [];
  while (stream === watched) {
    const { videoWidth, videoHeight } = element.video;
    const pixels = fit(element.video, videoWidth, videoHeight, classifier.target);
    const { probabilities, milliseconds } = await classifier.run(pixels);
    if (stream !== watched) return;
    times.push(milliseconds);
    showPixels(classifier.target, pixels);
    showAnswers(classifier, probabilities);
    showLatency(classifier, times.slice(-FRAMES));
    await new Promise(requestAnimationFrame);
  }
}

async function startCamera() {
  if (starting) return; // not a disabled button: that would lose the focus
  starting = true;
  try {
    const classifier = await loading;
    stream = await openCamera();
    element.video.srcObject = stream;
    await element.video.play();
    showVideo(element.video, classifier.target);
    showCamera(true);
    say("The camera shows, most likely:");
    starting = false;
    await watch(classifier, stream);
  } catch (error) {
    starting = false;
    stopCamera();
    complain(error);
  }
}

// Events ------------------------------------------------------------------------------------------

/** The first file of a choice, a drop or a paste, or words for what was dropped instead. */
function take(transfer) {
  const [file] = transfer?.files ?? [];
  if (file) classify(file);
  else complain(new Said("This is not a picture file. Save the picture first, then drop the file."));
}

function listen() {
  const choose = () => element.file.click();
  element.choose.addEventListener("click", choose);
  element.stage.addEventListener("click", choose);
  element.file.addEventListener("change", () => {
    if (element.file.files.length) take(element.file);
  });
  element.camera.addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    element.stage.classList.add("over");
  });
  addEventListener("dragleave", () => element.stage.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    element.stage.classList.remove("over");
    take(event.dataTransfer);
  });
  addEventListener("paste", (event) => take(event.clipboardData));
  addEventListener("visibilitychange", () => document.hidden && stopCamera());
}

listen(); // at once: a picture that is dropped early waits, and does not replace the page
try {
  const { about } = await loading;
  element.name.textContent = document.title = about.name;
  element.choose.disabled = element.camera.disabled = false;
  say("Ready.");
  element.progress.hidden = true;
} catch (error) {
  element.progress.hidden = true;
  complain(error);
}
