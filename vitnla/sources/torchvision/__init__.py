"""Models of torchvision."""
