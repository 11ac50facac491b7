"""Weights of other libraries: reading their files and translating their names."""
