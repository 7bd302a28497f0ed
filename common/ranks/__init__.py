"""How methods are ranked: per case first, then aggregated; and how firm the ranking is."""
