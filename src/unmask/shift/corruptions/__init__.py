"""Corruptions of images in torch: 19 of Hendrycks & Dietterich (2019), 7 more of MNIST-C."""

from unmask.shift.corruptions.registry import (
    CORRUPTIONS,
    Corruption,
    Draw,
    corrupt,
    corruption,
    corruptions,
)

__all__ = ["CORRUPTIONS", "Corruption", "Draw", "corrupt", "corruption", "corruptions"]
