"""TFLite files: the conversion, the quantization, the metadata."""
