"""The command `keras-resnet`."""
