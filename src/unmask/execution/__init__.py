"""Independent tasks, carried out here or by a cluster, with the same results."""
