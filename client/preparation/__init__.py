"""From an image to what the network sees: order, crop, resampling, scale."""
