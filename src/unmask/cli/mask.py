"""The verb mask: does it hold in the wild?"""

from __future__ import annotations

from cyclopts import App

app = App(name="mask", help="Does it hold in the wild? Faces with and without masks.")
app.command(
    "unmask.cli.mask_detect:detect",
    name="detect",
    help="Find faces in images, video or a camera, and who wears a mask.",
)
app.command(
    "unmask.cli.mask_train:train",
    name="train",
    help="Train a detector on your own annotated images.",
)
app.command(
    "unmask.cli.mask_evaluate:evaluate",
    name="evaluate",
    help="Measure a detector on annotated images.",
)
app.command(
    "unmask.cli.mask_export:export",
    name="export",
    help="Write a trained detector as ONNX, checked against PyTorch.",
)
app.command(
    "unmask.cli.mask_train_classifier:train_classifier",
    name="train-classifier",
    help="Train the course report's classifier on faces cut out of annotated images.",
)
