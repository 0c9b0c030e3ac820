"""Faces and masks: a detector, from annotated pictures to a model that runs anywhere."""
