"""Depth against activation: the document's study of vanishing gradients, over seeds."""
