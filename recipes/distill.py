"""Distillation: train a network on labels and on a teacher's outputs (arXiv:1503.02531).

keras-resnet distill cifar10/resnet20_fast --teacher RUN|FILE.keras
keras-resnet distill cifar10/resnet20_fast --teacher resnet32 --weights cifar10

The training is in `train.py`; the teacher is in `training/teacher.py`.
"""

import sys

if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["distill", *sys.argv[1:]]))
