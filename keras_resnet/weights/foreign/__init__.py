"""Other libraries' weights: reading their files and translating their names."""
