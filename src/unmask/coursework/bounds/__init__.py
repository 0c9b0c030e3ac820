"""The exact range of every factor of a gradient, by activation, loss and layer."""
