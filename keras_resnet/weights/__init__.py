"""Trained weights: which there are (catalog), their files on this machine (cache, download), how
they get into a network (loading, fitting), and files of other libraries (foreign).

Nothing is imported here, since `keras-resnet weights list` does not need TensorFlow.
"""
