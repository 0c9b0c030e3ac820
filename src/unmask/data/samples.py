"""The sample images that ship with Unmask."""

from __future__ import annotations

from importlib import resources

from PIL import Image


def portrait() -> Image.Image:
    """Return a portrait of Grace Hopper, 512 x 600 in RGB (J. S. Davis, US Navy; public domain)."""
    file = resources.files("unmask.data") / "samples" / "grace_hopper.jpg"
    with file.open("rb") as stream:
        return Image.open(stream).convert("RGB")
