"""Output for people: terminal, notebooks and pictures."""
