"""Proofs beside attacks: bounds on what a classifier's logits can become within a threat."""
