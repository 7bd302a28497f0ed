"""Predictions against references: pairs, scores, pages, pictures."""
