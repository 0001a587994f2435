"""The training loop and what surrounds it: recipes, patches, checkpoints, validation, fine-tuning."""
