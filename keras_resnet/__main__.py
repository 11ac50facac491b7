"""`python -m keras_resnet` is the command `keras-resnet`."""

import sys

from keras_resnet.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
