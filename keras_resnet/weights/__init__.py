"""Trained weights: their catalog, their files (cache, download, http), and how arrays get into a
network (loading, fitting). `foreign/` reads the files of other libraries.

Nothing is imported here: `keras-resnet weights list` needs no TensorFlow.
"""
