"""What is asked of the page of the format `web` in `chromium`."""

import base64
import json

import numpy as np


def answers(page):
    return page.run(
        "Array.from(document.querySelectorAll('#answers li'), (item) => "
        "[item.children[1].textContent, Number(item.dataset.probability)])"
    )


def run_in(page, images):
    """The page's probabilities of these very pixels."""
    script = """(async (images) => {
        const classifier = await (await import("./app.js")).loading;
        const bytes = images.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
        const answers = [];
        for (const image of bytes) answers.push((await classifier.run(image)).probabilities);
        return answers;
    })(%s)"""
    encoded = [base64.b64encode(image.tobytes()).decode() for image in images]
    return np.array(page.run(script % json.dumps(encoded)))


def fitted(page, path, width, height, channels):
    """The page's own pixels of a file."""
    script = """(async (text, width, height, channels) => {
        const { fit } = await import("./pixels.js");
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
        const target = { width, height, channels };
        return Array.from(fit(bitmap, bitmap.width, bitmap.height, target));
    })("%s", %d, %d, %d)"""
    encoded = base64.b64encode(path.read_bytes()).decode()
    pixels = page.run(script % (encoded, width, height, channels))
    return np.array(pixels, dtype="uint8").reshape(height, width, channels)
