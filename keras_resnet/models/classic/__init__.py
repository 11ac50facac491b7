"""The networks that residual ones are compared with: AlexNet to DenseNet."""
