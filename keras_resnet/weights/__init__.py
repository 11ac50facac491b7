"""Trained weights: their catalog, their files (cache, download, http), and loading into a network
(loading, fitting). `foreign/` reads the files of other libraries.

This file imports nothing, so that `keras-resnet weights list` does not need TensorFlow.
"""
