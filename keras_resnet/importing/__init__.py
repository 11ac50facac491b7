"""`keras-resnet weights import`: another library's file to ours, compared with its own network."""
