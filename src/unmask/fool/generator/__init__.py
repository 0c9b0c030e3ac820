"""The generator attack: a network of its own for each picture and class, all trained at once."""
