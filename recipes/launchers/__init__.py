"""Launchers that start the workers of a run with cluster managers; see docs/several_machines.md."""
