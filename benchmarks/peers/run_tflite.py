"""Run a .tflite file on images, on any machine with numpy and LiteRT.

    python run_tflite.py FILE IMAGES.npy OUTPUTS.npy

IMAGES are pixels from 0 to 255 in the size of the input, OUTPUTS the numbers that the file gives:
integers if its output is quantized.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(file, images, outputs):
    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for image in np.load(images):
        interpreter.set_tensor(taken["index"], image[None].astype(taken["dtype"]))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(given["index"])[0].copy())
    np.save(outputs, np.stack(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
