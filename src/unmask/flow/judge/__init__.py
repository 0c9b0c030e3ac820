"""What the measured gradients say is wrong with a network: pure functions of its statistics."""
