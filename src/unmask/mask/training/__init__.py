"""From annotated images to a detector: network, augmentation, training and export."""
