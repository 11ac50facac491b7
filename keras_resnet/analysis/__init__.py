"""What a network costs, layer by layer, and what it looks at."""
