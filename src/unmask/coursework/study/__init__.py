"""Depth against activation: the report's study of vanishing gradients, over seeds."""
