"""An audit: how small a change fools a classifier, and whether that figure can be trusted."""
