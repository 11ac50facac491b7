"""Accelerators (NPUs): which operations of an int8 file run on one, and its compiled file."""
