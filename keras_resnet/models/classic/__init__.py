"""Networks to compare residual ones with: AlexNet to DenseNet."""
