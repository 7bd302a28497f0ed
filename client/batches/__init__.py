"""Where patches come from and how each sample is varied."""
