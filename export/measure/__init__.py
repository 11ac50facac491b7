"""Measurements of exported files: latency, memory, and the error of each layer."""
