"""Does it hold in the wild? What is left of a classifier under blur, noise, another runtime."""
