"""`python -m keras_resnet` is the command `keras-resnet`."""

import sys

from keras_resnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
