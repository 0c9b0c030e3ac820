"""How good detections are, and whether their confidences are calibrated."""
