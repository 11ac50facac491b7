"""The command `keras-resnet`."""

import sys

from keras_resnet.cli import collision

if _found := collision.problem():
    print(f"error: {_found}", file=sys.stderr)
    raise SystemExit(2)
