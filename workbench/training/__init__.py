"""Training: recipes, balanced sampling, the loop, checkpoints."""
