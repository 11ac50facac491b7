"""How cluster managers start the workers of a run; see docs/several_machines.md."""
