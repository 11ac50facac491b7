"""Runs: their folders, what a verb takes as a model, and what is told of them."""
