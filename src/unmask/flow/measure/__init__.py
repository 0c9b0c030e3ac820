"""What a network's gradients are like while it trains: collected by hooks, kept as scalars."""
