"""Train four nets for one epoch and print how much of the gradient reaches their first layer."""

from unmask import grid, train_sweep
from unmask.data.mnist import load_mnist

train, test = load_mnist()
specs = grid(depth=[5, 20], activation=["tanh", "sigmoid"], epochs=1)
history = train_sweep(specs, train, test=test, probe_epochs=(0,))
for i, spec in enumerate(specs):
    rms = history.layers["gradient_rms"][i, 0, : spec.depth + 1]
    print(
        f"{spec.depth:2d} layers of {spec.activation:7s}"
        f"  test accuracy {history.test['test_accuracy'][i]:.3f}"
        f"  gradient of the first layer / of the last {rms[0] / rms[-1]:.1e}"
    )
