"""The networks; importing this package fills the registry."""
