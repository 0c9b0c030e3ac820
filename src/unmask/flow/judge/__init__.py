"""Verdicts on the measured gradients of a network: pure functions of its statistics."""
