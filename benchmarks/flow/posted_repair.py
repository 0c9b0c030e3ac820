"""What --repair makes of posted faults that a model, a loss, a batch and an optimiser show.

Each fault of a step is checked and repaired with its defaults at 60 steps a trial; the mended
training and its patched twin are then trained for 200 steps and compared on unseen digits. A line a
case, then one of JSON.

    python benchmarks/flow/posted_repair.py [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from posted import X, Y, batches, cnn, mlp, one_hot
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from unmask.errors import UserError
from unmask.flow.check import check_flow
from unmask.flow.repair import repair
from unmask.runtime import environment_stamp
from unmask.stats import wilson

STEPS, TRIAL, CLOSE, UNSEEN = 200, 60, 0.02, 3000
Training = tuple[Callable[[], nn.Module], Callable[[Tensor, Tensor], Tensor], Any]


def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(output, targets)


def nll(output: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(output, targets)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-3)


def sgd(rate: float, decay: float = 0.0) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, rate, weight_decay=decay)


def of_the_first_layer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(parameters)[:2], 1e-3)


def raw(x: Tensor) -> Tensor:
    return 255 * (x * 0.28 + 0.13)


PLAIN: Training = (mlp, cross_entropy, adam)
SLOW: Training = (mlp, cross_entropy, sgd(0.1))
# Name, the faulty training, and its patched twin.
CASES: dict[str, tuple[Training, Training]] = {
    "softmax before cross-entropy": ((lambda: mlp(nn.Softmax(1)), cross_entropy, adam), PLAIN),
    "softmax in a convolutional net": (
        (lambda: cnn(nn.Softmax(1)), cross_entropy, adam),
        (cnn, cross_entropy, adam),
    ),
    "log-softmax over the batch": ((lambda: mlp(nn.LogSoftmax(0)), nll, adam), PLAIN),
    "scores with nll": ((mlp, nll, adam), PLAIN),
    "softmax with nll": ((lambda: mlp(nn.Softmax(1)), nll, adam), PLAIN),
    "relu on the output": ((lambda: mlp(nn.ReLU()), cross_entropy, adam), PLAIN),
    "sigmoid on several classes": ((lambda: mlp(nn.Sigmoid()), cross_entropy, adam), PLAIN),
    "tanh on several classes": ((lambda: mlp(nn.Tanh()), cross_entropy, adam), PLAIN),
    "sigmoid twice": (
        (
            lambda: mlp(nn.Sigmoid()),
            lambda o, y: F.binary_cross_entropy_with_logits(o, one_hot(y)),
            adam,
        ),
        PLAIN,
    ),
    "one output for ten classes": (
        (
            lambda: mlp(outputs=1),
            lambda o, y: F.binary_cross_entropy_with_logits(o, y.float()[:, None]),
            adam,
        ),
        PLAIN,
    ),
    "one output with cross-entropy": (
        (lambda: mlp(outputs=1), lambda o, y: F.cross_entropy(o, y * 0), adam),
        PLAIN,
    ),
    "squared error on class numbers": (
        (lambda: mlp(outputs=1), lambda o, y: F.mse_loss(o[:, 0], y.float()), adam),
        PLAIN,
    ),
    "a loss that is maximised": ((mlp, lambda o, y: -F.cross_entropy(o, y), adam), PLAIN),
    "optimizer of the first layer": ((mlp, cross_entropy, of_the_first_layer), PLAIN),
    "a rate of zero": ((mlp, cross_entropy, sgd(0.0)), SLOW),
    "a rate of a millionth": ((mlp, cross_entropy, sgd(1e-6)), SLOW),
    "a rate of a hundred": ((mlp, cross_entropy, sgd(100.0)), SLOW),
    "weight decay of one": ((mlp, cross_entropy, sgd(0.1, 1.0)), SLOW),
    "pixels not scaled": ((mlp, cross_entropy, sgd(0.05)), (mlp, cross_entropy, sgd(0.05))),
    "a loss that is summed": (
        (mlp, lambda o, y: F.cross_entropy(o, y, reduction="sum"), sgd(0.1)),
        SLOW,
    ),
}


def accuracy(model: nn.Module, x: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == Y[UNSEEN:]).float().mean())


def train(model: nn.Module, loss: Any, optimizer: Any, data: Any) -> nn.Module:
    for x, y in data:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model


def repaired(name: str) -> dict[str, Any]:
    """Return the accuracies of the twin and of the mended training, and the fix."""
    (make, loss, optimizer), (twin, right, usual) = CASES[name]
    fed = raw if name == "pixels not scaled" else lambda x: x

    def data(seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return ((fed(x), y) for x, y in batches(STEPS))

    torch.manual_seed(0)
    model = twin()
    aim = accuracy(train(model, right, usual(model.parameters()), batches(STEPS)), X[UNSEEN:])
    torch.manual_seed(0)
    model = make()
    pairs = [pair for _, pair in zip(range(10), data(), strict=False)]
    check = check_flow(model, loss, pairs, optimizer=optimizer)
    reached, fix = 0.0, "none worked"
    try:
        outcome = repair(model, loss, data, optimizer, check=check, steps=TRIAL)
    except UserError as error:
        fix = str(error)
    else:
        if outcome.mended is not None and outcome.best is not None:
            mended = outcome.mended.model(model, seed=0)
            stepper = outcome.mended.optimizer(optimizer, mended)
            train(mended, outcome.mended.loss(loss), stepper, data())
            reached, fix = accuracy(mended, fed(X[UNSEEN:])), outcome.best.name
    return {"case": name, "twin": aim, "mended": reached, "fix": fix}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of cases")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.only or CASES:
        rows.append(repaired(name))
        row = rows[-1]
        print(
            f"{name}: twin {row['twin']:.3f}, mended {row['mended']:.3f} by {row['fix']}",
            flush=True,
        )
    close = sum(row["mended"] >= row["twin"] - CLOSE for row in rows)
    low, high = wilson(close, len(rows))
    print(f"{close} of {len(rows)} within 2 points of the patch ({low:.2f} to {high:.2f})")
    print(json.dumps({"cases": rows, "close": close, "stamp": environment_stamp(threads=1)}))


if __name__ == "__main__":
    main()
