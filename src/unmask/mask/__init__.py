"""Faces and masks: a detector, from annotated images to a model that runs anywhere."""
