"""Will it train? Gradients by layer, and what the depth and the activation do to them."""
