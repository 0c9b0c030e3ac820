"""The verb fool: can it be fooled?"""

from __future__ import annotations

from cyclopts import App

app = App(
    name="fool",
    help="Can it be fooled? The smallest change after which another class is predicted.",
)
app.command(
    "unmask.cli.fool_grid:draw_grid",
    name="grid",
    help="Draw images changed a little so that a classifier takes each for every other class.",
)
app.command(
    "unmask.cli.fool_audit:audit_model",
    name="audit",
    help="Attack a classifier with an ensemble, and judge how far its figures can be trusted.",
)
app.command(
    "unmask.cli.fool_certify:certify_model",
    name="certify",
    help="Prove for each image that no change within eps moves it to another class.",
)
app.command(
    "unmask.cli.fool_harden:harden",
    name="harden",
    help="Train a classifier that withstands changes up to a given size.",
)
