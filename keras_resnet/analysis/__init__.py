"""Cost of a network per layer, and explanations of its predictions."""
