"""How predictions are judged: metrics, the rules of challenges, post-processing, scores."""
