"""Proofs beside attacks: bounds on a classifier's logits within a threat."""
