"""What runs a model file, a file per runtime."""
