"""Residual networks, as in the papers: a spec, its parts, and tables of rows."""
