"""The verb flow: will it train?"""

from __future__ import annotations

from cyclopts import App

app = App(name="flow", help="Will it train? Gradients by layer, depth and activation.")
app.command(
    "unmask.cli.flow_study:study",
    name="study",
    help="Train nets of many depths and activations on MNIST and show where gradients vanish.",
)
app.command(
    "unmask.cli.flow_bounds:bounds",
    name="bounds",
    help="Show the exact range of f' and of dE/dw, for the last layer and any other.",
)
app.command(
    "unmask.cli.flow_map:draw_map",
    name="map",
    help="Train nets over sigma_w2 and depth and draw the theory's trainable depth on the outcome.",
)
app.command(
    "unmask.cli.flow_watch:watch",
    name="watch",
    help="Run your own training script unchanged and report faults while it trains.",
)
app.command(
    "unmask.cli.flow_check:check",
    name="check",
    help="Check whether your own PyTorch model trains: verdicts, causes, fixes, repair.",
)
