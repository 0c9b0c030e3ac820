"""Images with boxes: annotations, their formats, and corrections of them."""
