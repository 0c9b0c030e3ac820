"""Results become figures; the only place that imports matplotlib."""
