"""What is asked of the page of the format `web` in `chromium`."""

import base64
import json

import numpy as np

from keras_resnet.export.formats import web


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


def fitted(page, path, shape, crop=None):
    """The page's own pixels of a file, for a model of `shape` (height, width, channels)."""
    script = """(async (text, target) => {
        const { fit } = await import("./pixels.js");
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
        return Array.from(fit(bitmap, bitmap.width, bitmap.height, target));
    })("%s", %s)"""
    encoded = base64.b64encode(path.read_bytes()).decode()
    target = dict(zip(("height", "width", "channels"), shape, strict=True))
    target["resize"] = web._resize(shape[:2], crop)
    pixels = page.run(script % (encoded, json.dumps(target)))
    return np.array(pixels, dtype="uint8").reshape(shape)


def seen(page):
    """The pixels that the page says the model sees, (height, width, 3)."""
    pixels = page.run("""(() => {
        const { width, height } = document.querySelector("#pixels");
        const context = document.querySelector("#pixels").getContext("2d");
        return [height, width, Array.from(context.getImageData(0, 0, width, height).data)];
    })()""")
    height, width, rgba = pixels
    return np.array(rgba, dtype="uint8").reshape(height, width, 4)[..., :3]
