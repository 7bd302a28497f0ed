"""What runs at a hospital: reading, preprocessing, training, prediction, evaluation."""
