"""The generator attack: a network of its own for each image and class, all trained at once."""
