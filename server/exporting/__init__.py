"""A run's events for other programs: tables, TensorBoard, MLflow."""
