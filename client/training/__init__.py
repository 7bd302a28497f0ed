"""A round's training at a site: the loop, the loss, the optimiser, and going on after a crash."""
