"""Runs: their folders, the models that commands accept, reports and comparisons."""
