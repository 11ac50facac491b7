"""What an exported file costs and where it loses: latency, memory, layers."""
