"""Results become figures, pages and files of numbers."""
