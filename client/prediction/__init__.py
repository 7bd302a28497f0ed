"""From weights and an image to labels on the image's own grid, in bounded memory."""
