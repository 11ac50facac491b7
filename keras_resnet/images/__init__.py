"""Reading images, preprocessing, crops and class names."""
