"""Exact rewrites of a model before it is converted."""
