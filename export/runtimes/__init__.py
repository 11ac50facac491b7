"""The runtimes that run model files, one module each."""
