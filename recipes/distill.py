"""Train a network on the labels and on a trained one's answers (Hinton 2015, arXiv:1503.02531).

keras-resnet distill cifar10/resnet20_fast --teacher RUN|FILE.keras
keras-resnet distill cifar10/resnet20_fast --teacher resnet32 --weights cifar10

The training is that of `train.py`; what the teacher adds to it is `training/teacher.py`.
"""

import sys

if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["distill", *sys.argv[1:]]))
