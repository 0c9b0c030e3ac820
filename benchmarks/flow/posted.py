"""Faults that people posted, each rebuilt as a small training of our own with its patch as a twin.

Every case names where it, or its like, was posted. It trains on MNIST at 14 px, watched from
outside; it is found when a verdict of the right kind is given, and its patched twin must get none.
Half of the cases, by the hash of their names, are for development; the others are measured once,
and nothing is changed to suit them. A table first, then one line of JSON.

    python benchmarks/flow/posted.py [--half measured|development] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from unmask.data.mnist import load_mnist
from unmask.flow.watch import Watch
from unmask.runtime import environment_stamp, seeded
from unmask.stats import wilson

STEPS, BATCH = 40, 32
PYTORCH = "https://github.com/pytorch/pytorch/issues"
KERAS = "https://codemia.io/knowledge-hub/path"
STUCK = "https://chenzhang.org/notes/developer/loss-and-accuracy-get-stuck-in-keras/"
Train = Callable[[bool], None]


@dataclass(frozen=True)
class Case:
    """A posted fault: the kinds of verdict that name it, where it was posted, and the training."""

    name: str
    kinds: tuple[str, ...]
    source: str
    train: Train

    @property
    def measured(self) -> bool:
        return hashlib.sha256(self.name.encode()).digest()[0] % 2 == 1


CASES: list[Case] = []


def case(source: str, *kinds: str) -> Callable[[Train], Train]:
    def add(train: Train) -> Train:
        CASES.append(Case(train.__name__.replace("_", " "), kinds, source, train))
        return train

    return add


def _digits() -> tuple[Tensor, Tensor]:
    images = load_mnist()[0]
    x = torch.from_numpy(np.array(images.pixels[:4000])).float() / 255
    x = F.avg_pool2d(x, 2)
    return (x - 0.13) / 0.28, torch.from_numpy(np.array(images.labels[:4000]))


X, Y = _digits()


def batches(
    n: int = STEPS, size: int = BATCH, order: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of digits, drawn, or in an order where one is given."""
    g = seeded(41)
    for i in range(n):
        if order is None:
            rows = torch.from_numpy(g.integers(len(X), size=size))
        else:
            rows = order[(torch.arange(size) + i * size) % len(order)]
        yield X[rows], Y[rows]


def mlp(*after: nn.Module, outputs: int = 10, width: int = 48) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(196, width), nn.ReLU(), nn.Linear(width, outputs), *after
    )


def cnn(*after: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(392, 10),
        *after,
    )


def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
    # Looked up when it is called, as in a script that was started under the watch.
    return F.cross_entropy(output, targets)


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    optimizer: torch.optim.Optimizer | None = None,
    data: Iterator[tuple[Tensor, Tensor]] | None = None,
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y),
) -> None:
    """Train as everybody does."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in data or batches():
        x, y = change(x, y)
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()


def one_hot(y: Tensor) -> Tensor:
    return F.one_hot(y, 10).float()


HEAD = "activation before the loss"


@case("https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814", HEAD)
def softmax_module_before_cross_entropy(fixed: bool) -> None:
    fit(mlp() if fixed else mlp(nn.Softmax(dim=1)), nn.CrossEntropyLoss())


@case("https://github.com/Lightning-AI/pytorch-lightning/issues/20344", HEAD)
def softmax_in_forward(fixed: bool) -> None:
    net = cnn()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            z = self.net(x)
            return z if fixed else F.softmax(z, dim=-1)

    fit(Wrapped())


@case("https://github.com/tflearn/tflearn/pull/562", HEAD)
def softmax_before_a_loss_on_one_hot_labels(fixed: bool) -> None:
    fit(mlp() if fixed else mlp(nn.Softmax(1)), lambda o, y: F.cross_entropy(o, one_hot(y)))


@case("https://github.com/jaehong31/CGES/issues/1", HEAD)
def softmax_in_a_convolutional_net(fixed: bool) -> None:
    fit(cnn() if fixed else cnn(nn.Softmax(1)))


@case("https://runebook.dev/en/docs/pytorch/generated/torch.nn.softmax", HEAD)
def log_softmax_over_the_batch(fixed: bool) -> None:
    fit(mlp(nn.LogSoftmax(1 if fixed else 0)), nn.NLLLoss())


@case("https://runebook.dev/en/docs/pytorch/generated/torch.nn.softmax", "wrong loss")
def softmax_with_nll(fixed: bool) -> None:
    fit(mlp(nn.LogSoftmax(1) if fixed else nn.Softmax(1)), nn.NLLLoss())


@case("https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814", "wrong loss")
def scores_with_nll(fixed: bool) -> None:
    fit(mlp(), cross_entropy if fixed else nn.NLLLoss())


@case(
    "https://community.deeplearning.ai/t/loss-values-do-not-change/324182", HEAD, "constant outputs"
)
def relu_on_the_output(fixed: bool) -> None:
    fit(mlp() if fixed else mlp(nn.ReLU()))


@case(f"{KERAS}/keras_model_gets_constant_loss_and_accuracy", HEAD)
def sigmoid_on_several_classes(fixed: bool) -> None:
    fit(mlp() if fixed else mlp(nn.Sigmoid()))


@case("https://github.com/NVIDIA/DeepLearningExamples/issues/468", HEAD)
def sigmoid_twice(fixed: bool) -> None:
    model = mlp() if fixed else mlp(nn.Sigmoid())
    fit(model, lambda o, y: F.binary_cross_entropy_with_logits(o, one_hot(y)))


@case(
    f"{KERAS}/keras_model_gets_constant_loss_and_accuracy",
    "wrong loss",
)
def one_output_for_ten_classes(fixed: bool) -> None:
    if fixed:
        return fit(mlp())
    return fit(
        mlp(outputs=1), lambda o, y: F.binary_cross_entropy_with_logits(o, y.float()[:, None])
    )


@case(
    f"{KERAS}/keras_model_gets_constant_loss_and_accuracy",
    "wrong loss",
)
def one_output_with_cross_entropy(fixed: bool) -> None:
    fit(mlp(outputs=10 if fixed else 1), lambda o, y: F.cross_entropy(o, y if fixed else y * 0))


@case("http://www.kouhan.cn/en/article/00050409", "wrong loss")
def squared_error_on_class_numbers(fixed: bool) -> None:
    if fixed:
        return fit(mlp())
    return fit(mlp(outputs=1), lambda o, y: F.mse_loss(o.squeeze(1), y.float()))


@case(f"{PYTORCH}/3358", "shapes broadcast")
def column_against_row(fixed: bool) -> None:
    def brightness(o: Tensor, y: Tensor) -> Tensor:
        aim = y.float() / 9 + 0.01 * torch.arange(len(y))
        return F.mse_loss(o.squeeze(1) if fixed else o, aim)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(mlp(outputs=1), brightness)


@case("https://github.com/tenstorrent/tt-blacksmith/pull/711", "gradients not zeroed")
def zero_grad_left_out(fixed: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for x, y in batches():
        if fixed:
            optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@case("https://github.com/gaozhihan/PreDiff/pull/33", "gradients not zeroed")
def zero_grad_once_an_epoch(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    optimizer.zero_grad()
    for x, y in batches():
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if fixed:
            optimizer.zero_grad()


@case("https://github.com/Tony-Y/pytorch_warmup/issues/12", "no step")
def zero_grad_between_backward_and_step(fixed: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in batches():
        loss = F.cross_entropy(model(x), y)
        if fixed:
            optimizer.zero_grad()
        loss.backward()
        if not fixed:
            optimizer.zero_grad()
        optimizer.step()


@case(f"{PYTORCH}/3814", "no step")
def schedule_stepped_and_not_the_optimizer(fixed: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if fixed:
            optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schedule.step()


@case("https://github.com/automl/Auto-PyTorch/pull/210", "learning rate vanishes")
def schedule_stepped_at_every_batch(fixed: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.1)
    for i, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if not fixed or i % 20 == 19:
            schedule.step()


@case("https://github.com/ivadomed/ivadomed/pull/55", "learning rate vanishes")
def exponential_decay_at_every_batch(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.6)
    for i, (x, y) in enumerate(batches(60)):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if not fixed or i % 20 == 19:
            schedule.step()


@case("https://github.com/Lightning-AI/litgpt/issues/779", "weights that don't move")
def learning_rate_stays_zero(fixed: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for i, (x, y) in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * min(1.0, i / 5) if fixed else 0.0
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@case(
    "https://github.com/huggingface/accelerate/issues/2665", "parameters in no optimiser", "no step"
)
def optimizer_of_a_copy(fixed: bool) -> None:
    import copy

    model = mlp()
    other = model if fixed else copy.deepcopy(model)
    fit(model, optimizer=torch.optim.Adam(other.parameters(), 1e-3))


@case(f"{PYTORCH}/3358", "parameters in no optimiser")
def head_replaced_after_the_optimizer_was_made(fixed: bool) -> None:
    model = mlp(outputs=100)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model[3] = nn.Linear(48, 10)
    if fixed:
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    fit(model, optimizer=optimizer)


@case("https://github.com/pytorch/rl/pull/185", "parameters in no optimiser")
def optimizer_of_the_first_layers(fixed: bool) -> None:
    model = mlp()
    held = model if fixed else model[1]
    fit(model, optimizer=torch.optim.Adam(held.parameters(), 1e-3))


class Parts(nn.Module):
    """A trunk and a head that are joined as the case says."""

    def __init__(self, join: Callable[[Parts, Tensor], Tensor]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(196, 48), nn.ReLU())
        self.head = nn.Linear(48, 10)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, x)


GRAPH = "parameters without gradient"


@case(f"{PYTORCH}/3358", GRAPH)
def features_detached(fixed: bool) -> None:
    fit(Parts(lambda n, x: n.head(n.trunk(x) if fixed else n.trunk(x).detach())))


@case(f"{PYTORCH}/3358", GRAPH)
def features_through_data(fixed: bool) -> None:
    fit(Parts(lambda n, x: n.head(n.trunk(x) if fixed else n.trunk(x).data)))


@case(f"{PYTORCH}/3358", GRAPH)
def features_without_gradients(fixed: bool) -> None:
    def join(n: Parts, x: Tensor) -> Tensor:
        with contextlib.nullcontext() if fixed else torch.no_grad():
            f = n.trunk(x)
        return n.head(f)

    fit(Parts(join))


@case(f"{PYTORCH}/3358", GRAPH)
def features_through_numpy(fixed: bool) -> None:
    def join(n: Parts, x: Tensor) -> Tensor:
        f = n.trunk(x)
        return n.head(f if fixed else torch.from_numpy(f.detach().numpy().copy()))

    fit(Parts(join))


@case(f"{PYTORCH}/715", "layers not registered")
def layers_in_a_python_list(fixed: bool) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(196, 48), nn.Linear(48, 48)]
            self.hidden = nn.ModuleList(layers) if fixed else layers
            self.head = nn.Linear(48, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            for layer in self.hidden:
                x = layer(x).relu()
            return self.head(x)

    fit(Listed())


@case(f"{PYTORCH}/632", "layers not registered")
def layers_in_a_dictionary(fixed: bool) -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = {"a": nn.Linear(196, 48)}
            self.parts = nn.ModuleDict(layers) if fixed else layers
            self.head = nn.Linear(48, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.parts["a"](x.flatten(1)).relu())

    fit(Mapped())


@case("https://github.com/LianpoWang/SLIIF/issues/13", "layers not registered")
def convolutions_in_a_python_list(fixed: bool) -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            towers = [nn.Conv2d(1, 4, k, padding=k // 2) for k in (1, 3, 5)]
            self.towers = nn.ModuleList(towers) if fixed else towers
            self.head = nn.Linear(12 * 49, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([F.max_pool2d(t(x).relu(), 2) for t in self.towers], 1)
            return self.head(x.flatten(1))

    fit(Towers())


def rooted(join: Callable[[Tensor], Tensor]) -> Parts:
    return Parts(lambda n, x: n.head(join(n.trunk(x))))


@case("https://github.com/mpariente/pytorch_stoi/issues/7", "not a number")
def square_root_at_zero(fixed: bool) -> None:
    fit(rooted(lambda f: f + (f * 0 + (1e-8 if fixed else 0.0)).sqrt()))


@case(f"{PYTORCH}/2421", "not a number")
def norm_at_zero(fixed: bool) -> None:
    def join(f: Tensor) -> Tensor:
        f = f * (f.sum(1, keepdim=True) > 1e9)
        length = f.norm(dim=1, keepdim=True)
        return f / (length + 1e-6 if fixed else length)

    fit(rooted(join))


@case("https://github.com/FlyingGiraffe/vnn/pull/4", "not a number")
def divided_by_a_sum_of_zero(fixed: bool) -> None:
    def join(f: Tensor) -> Tensor:
        part = f[:, :4] * 0 if not fixed else f[:, :4]
        return f / (part.sum(1, keepdim=True) + (1e-3 if fixed else 0.0))

    fit(rooted(join))


@case("https://github.com/kornia/kornia/issues/918", "not a number")
def power_of_zero(fixed: bool) -> None:
    fit(rooted(lambda f: f + (f * 0 + (1e-6 if fixed else 0.0)).pow(0.5)))


@case("https://taourl.com/read-2580275.html", "not a number")
def logarithm_of_zero(fixed: bool) -> None:
    fit(rooted(lambda f: (f + 1 if fixed else f).log()))


@case("https://github.com/ronghuaiyang/arcface-pytorch/issues/91", "not a number")
def sine_of_a_cosine_of_one(fixed: bool) -> None:
    def join(f: Tensor) -> Tensor:
        cosine = (f / (f.detach() + 1e-12)).clamp(-1, 1)
        rest = 1 - cosine.pow(2)
        return f + (rest.clamp(1e-6, 1) if fixed else rest).sqrt()

    fit(rooted(join))


@case("https://www.codegenes.net/blog/pytorch-gradient-nan", "bad data")
def nan_in_the_images(fixed: bool) -> None:
    def holes(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[:2, 0, 0, 0] = math.nan
        return (x.nan_to_num() if fixed else x), y

    fit(mlp(), change=holes)


@case("https://github.com/ermongroup/ncsn/issues/2", "wrong mode")
def evaluation_mode_while_training(fixed: bool) -> None:
    model = cnn()
    fit(model.train() if fixed else model.eval())


@case("https://github.com/pliang279/MultiBench/issues/26", "wrong mode")
def training_mode_while_validating(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):
        model.train()
        fit(model, optimizer=optimizer, data=batches(10))
        if fixed:
            model.eval()
        with torch.no_grad():
            for x, _y in batches(5):
                model(x)


@case(f"{KERAS}/keras_accuracy_does_not_change", "labels imbalanced")
def one_class_in_ninety_five(fixed: bool) -> None:
    def rare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y if fixed else torch.where(torch.rand(len(y)) < 0.96, 0, y)

    fit(mlp(), change=rare)


@case(STUCK, "labels constant")
def labels_read_as_one_class(fixed: bool) -> None:
    fit(mlp(), change=lambda x, y: (x, y if fixed else y * 0 + 3))


@case(
    f"{KERAS}/keras_model_gets_constant_loss_and_accuracy",
    "batches sorted by class",
)
def not_shuffled(fixed: bool) -> None:
    order = Y.argsort()
    # Each batch of a folder read class by class, a few classes an epoch.
    steps = 10
    each = torch.cat([order[len(order) * i // steps :][:BATCH] for i in range(steps)])
    fit(mlp(), data=batches(STEPS, order=None if fixed else each))


@case("https://taourl.com/read-3822972.html", "inputs badly scaled")
def pixels_not_scaled(fixed: bool) -> None:
    def raw(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x if fixed else 255 * (x * 0.28 + 0.13), y

    model = mlp()
    fit(model, optimizer=torch.optim.SGD(model.parameters(), 0.05), change=raw)


@case("https://taourl.com/read-2580275.html", "learning rate too high", "diverged")
def learning_rate_of_a_hundred(fixed: bool) -> None:
    model = mlp()
    fit(model, optimizer=torch.optim.SGD(model.parameters(), 0.1 if fixed else 100.0))


@case(
    STUCK,
    "learning rate too low",
)
def learning_rate_of_a_millionth(fixed: bool) -> None:
    model = mlp()
    fit(model, optimizer=torch.optim.SGD(model.parameters(), 0.1 if fixed else 1e-6))


@case(
    "https://taourl.com/read-2208585.html",
    "exploding",
    "diverged",
    "learning rate too high",
    "saturated",
    "inputs badly scaled",
)
def weights_drawn_up_to_a_thousand(fixed: bool) -> None:
    model = mlp()
    if not fixed:
        for p in model.parameters():
            p.data.uniform_(-1000, 1000)
    fit(model, optimizer=torch.optim.SGD(model.parameters(), 0.01))


@case("https://preproom.ai/learn/model-training-pytorch.html", "dropout too strong")
def dropout_of_nearly_everything(fixed: bool) -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(196, 48),
        nn.ReLU(),
        nn.Dropout(0.2 if fixed else 0.97),
        nn.Linear(48, 10),
    )
    fit(model)


def watched(train: Train, fixed: bool) -> set[str]:
    """Return the kinds of verdict, warnings and errors, that a training gets."""
    torch.manual_seed(0)
    with contextlib.redirect_stderr(io.StringIO()):
        session = Watch()
        with contextlib.suppress(Exception), session:
            train(fixed)
    return {v.kind for v in session.report.at_least("warning")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("measured", "development"), default="measured")
    parser.add_argument("--only", nargs="*", help="names of cases")
    arguments = parser.parse_args()
    chosen = [c for c in CASES if c.measured == (arguments.half == "measured")]
    if arguments.only:
        chosen = [c for c in CASES if c.name in arguments.only]
    measure(chosen, arguments.half)


def measure(chosen: Sequence[Case], half: str) -> None:
    """Watch both trainings of each case, and print what was found: a table, then JSON."""
    torch.set_num_threads(1)
    table = Table("case", "right", "given", "the patched twin")
    found = silent = right = given = 0
    rows = []
    for c in chosen:
        faulty, healthy = watched(c.train, False), watched(c.train, True)
        hit = bool(faulty & set(c.kinds))
        found += hit
        silent += not healthy
        right += len(faulty & set(c.kinds))
        given += len(faulty) + len(healthy)
        table.add_row(c.name, "yes" if hit else "no", ", ".join(faulty), ", ".join(healthy))
        rows.append(
            {
                "case": c.name,
                "source": c.source,
                "kinds": c.kinds,
                "given": sorted(faulty),
                "twin": sorted(healthy),
            }
        )
    n = len(chosen)
    Console().print(table)
    low, high = wilson(found, n)
    print(
        f"{n} cases: recall {found / n:.3f} ({low:.2f} to {high:.2f}), precision "
        f"{right / max(given, 1):.3f}, twins silent {silent / n:.3f}"
    )
    print(
        json.dumps(
            {
                "half": half,
                "cases": rows,
                "recall": found / n,
                "precision": right / max(given, 1),
                "silent": silent / n,
                "stamp": environment_stamp(threads=1),
            }
        )
    )


if __name__ == "__main__":
    main()
