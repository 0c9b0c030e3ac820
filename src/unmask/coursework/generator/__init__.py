"""The generator attack: one network for each image and target class, all trained at once."""
