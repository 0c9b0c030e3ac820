"""The gradients of a network while it trains: collected by hooks, kept as scalars."""
