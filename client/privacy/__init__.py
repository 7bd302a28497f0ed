"""Patient-level differential privacy at a site: who is drawn, clipped, noised and charged."""
