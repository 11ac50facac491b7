"""`keras-resnet weights import`: convert a file of another library, and compare the networks."""
