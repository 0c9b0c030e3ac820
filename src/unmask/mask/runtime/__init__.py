"""The detector as it runs anywhere: onnxruntime, NumPy and Pillow only."""
