"""Thousands of multilayer perceptrons trained at once, to measure how gradients flow."""
