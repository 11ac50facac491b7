"""Pixels in, names out: reading images, preprocessing, crops and class names."""
