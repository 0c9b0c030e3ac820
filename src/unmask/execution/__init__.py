"""Independent tasks, run here or by a cluster, with the same results."""
