"""How good detections are, and whether their confidences come true."""
