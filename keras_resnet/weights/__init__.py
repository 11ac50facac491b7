"""Trained weights: which there are (catalog), their files (cache, download), how they get into a
network (loading, fitting), and other libraries' (readers, convert, torch, importing).

Nothing is imported here, since `keras-resnet weights list` does not need TensorFlow.
"""
