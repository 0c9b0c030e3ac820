"""The verbs that have sub-verbs: flow, fool and mask."""

from __future__ import annotations

from cyclopts import App

flow = App(name="flow", help="Will it train? Gradients by layer, depth and activation.")
flow.command(
    "unmask.cli.flow_study:study",
    name="study",
    help="Train nets of many depths and activations on MNIST and show where gradients vanish.",
)
flow.command(
    "unmask.cli.flow_bounds:bounds",
    name="bounds",
    help="Show the exact range of f' and of dE/dw, for the last layer and any other.",
)
flow.command(
    "unmask.cli.flow_map:draw_map",
    name="map",
    help="Train nets over sigma_w2 and depth and draw the theory's trainable depth on the outcome.",
)
flow.command(
    "unmask.cli.flow_watch:watch",
    name="watch",
    help="Run your own training script unchanged and report faults while it trains.",
)
flow.command(
    "unmask.cli.flow_check:check",
    name="check",
    help="Check whether your own PyTorch model trains: verdicts, causes, fixes, repair.",
)

fool = App(
    name="fool",
    help="Can it be fooled? The smallest change after which another class is predicted.",
)
fool.command(
    "unmask.cli.fool_grid:draw_grid",
    name="grid",
    help="Draw images changed a little so that a classifier takes each for every other class.",
)
fool.command(
    "unmask.cli.fool_audit:audit_model",
    name="audit",
    help="Attack a classifier with an ensemble, and judge how far its figures can be trusted.",
)
fool.command(
    "unmask.cli.fool_certify:certify_model",
    name="certify",
    help="Prove for each image that no change within eps moves it to another class.",
)
fool.command(
    "unmask.cli.fool_harden:harden",
    name="harden",
    help="Train a classifier that withstands changes up to a given size.",
)

mask = App(name="mask", help="Does it hold in the wild? Faces with and without masks.")
mask.command(
    "unmask.cli.mask_detect:detect",
    name="detect",
    help="Find faces in images, video or a camera, and who wears a mask.",
)
mask.command(
    "unmask.cli.mask_train:train",
    name="train",
    help="Train a detector on your own annotated images.",
)
mask.command(
    "unmask.cli.mask_evaluate:evaluate",
    name="evaluate",
    help="Measure a detector on annotated images.",
)
mask.command(
    "unmask.cli.mask_export:export",
    name="export",
    help="Write a trained detector as ONNX, checked against PyTorch.",
)
mask.command(
    "unmask.cli.mask_train_classifier:train_classifier",
    name="train-classifier",
    help="Train the course report's classifier on faces cut out of annotated images.",
)
