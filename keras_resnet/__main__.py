"""Run the command `keras-resnet` as `python -m keras_resnet`."""

import sys

from keras_resnet.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
