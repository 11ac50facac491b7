"""The loop that LiteRT's guide shows: read an image with Pillow, invoke, write the class.

    python benchmarks/peers/bare_predict.py FILE.tflite FOLDER OUT.csv

The image is cut to a square in the middle and resized.
"""

import csv
import os
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

file, folder, out = sys.argv[1:]
interpreter = Interpreter(file, num_threads=os.cpu_count())
interpreter.allocate_tensors()
(given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
size = tuple(given["shape"][1:3])
with open(out, "w", encoding="utf-8") as answers:
    rows = csv.writer(answers)
    for path in sorted(Path(folder).iterdir()):
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        pixels = np.asarray(ImageOps.fit(image, size, Image.Resampling.BILINEAR))
        values = pixels.astype(given["dtype"])
        if given["dtype"] == np.int8:  # the quantized input: pixels from -128 on
            values = (pixels.astype("int16") - 128).astype("int8")
        interpreter.set_tensor(given["index"], values[None])
        interpreter.invoke()
        rows.writerow([path, interpreter.get_tensor(answer["index"])[0].argmax()])
