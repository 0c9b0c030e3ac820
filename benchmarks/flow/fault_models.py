"""Healthy models, and the same models with one thing broken: the recipes of the fault benchmark.

A recipe is a handful of plain values and a seed, so that every model and its data can be built
again. Nothing here knows what any checker looks at.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.runtime import seeded

STEPS = 300
FAULTS = (
    "vanishing: small weights",
    "vanishing: sigmoid",
    "exploding: large weights",
    "dead units",
    "saturated",
    "underflow",
    "learning rate too high",
    "learning rate too low",
    "inputs too large",
    "inputs too small or off centre",
    "constant outputs",
    "symmetric initialisation",
)
# sigma_w2, sigma_b2 at which a deep plain net of that activation trains.
CRITICAL = {
    "relu": (2.0, 0.0),
    "leaky_relu": (2.0, 0.0),
    "tanh": (1.424, 0.01),
    "lecun": (0.989, 0.01),
    "selu": (1.0, 0.0),
    "elu": (1.55, 0.0),
    "gelu": (2.0, 0.05),
    "silu": (2.2, 0.1),
    "sigmoid": (16.0, 0.0),
}


@dataclass(frozen=True)
class Recipe:
    """How a model, its data and its training are built; the last six break it."""

    name: str
    seed: int
    data: str
    family: str
    depth: int
    width: int
    activation: str
    functional: bool
    norm: str
    dropout: float
    init: str
    optimizer: str
    learning_rate: float
    batch: int
    input_gain: float
    input_offset: float
    zero_head: bool
    weight_decay: float
    fault: str | None = None
    weight_std: float | None = None
    weight_gain: float = 1.0
    bias_shift: float = 0.0
    constant_weight: float | None = None
    output_relu: bool = False


def lecun(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(2 * x / 3) + 0.01 * x


class Lecun(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return lecun(x)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "lecun": Lecun,
    "selu": nn.SELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "tanh": torch.tanh,
    "lecun": lecun,
    "selu": functional.selu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
}


class Plain(nn.Module):
    """A function as a module, for recipes whose activation is no module of torch's."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Block(nn.Module):
    """Layer, normalisation, activation, dropout; with a residual connection where asked."""

    def __init__(self, recipe: Recipe, layer: nn.Module, residual: bool, pool: bool) -> None:
        super().__init__()
        self.layer, self.residual = layer, residual
        width = recipe.width
        conv = isinstance(layer, nn.Conv2d)
        norms: dict[str, Callable[[], nn.Module]] = {
            "none": nn.Identity,
            "batch": lambda: (nn.BatchNorm2d if conv else nn.BatchNorm1d)(width),
            "layer": lambda: nn.GroupNorm(1, width) if conv else nn.LayerNorm(width),
        }
        self.norm = norms[recipe.norm]()
        name = recipe.activation
        self.phi = Plain(FUNCTIONS[name]) if recipe.functional else MODULES[name]()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.dropout = nn.Dropout(recipe.dropout) if recipe.dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.phi(self.norm(self.layer(x)))
        return self.pool(self.dropout(x + y if self.residual else y))


class Net(nn.Module):
    """depth blocks and a linear output layer."""

    def __init__(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        r, residual = recipe, recipe.family.startswith("res")
        blocks: list[nn.Module] = []
        if r.family.endswith("mlp"):
            size = math.prod(shape)
            for i in range(r.depth):
                layer = nn.Linear(size if i == 0 else r.width, r.width)
                blocks.append(Block(r, layer, residual and i > 0, pool=False))
            self.head = nn.Linear(r.width, classes)
            self.flat_first = True
        else:
            channels, side = shape[0], shape[1]
            pools = set(range(min(2, r.depth))) if r.depth <= 4 else {0, r.depth // 2}
            for i in range(r.depth):
                layer = nn.Conv2d(channels if i == 0 else r.width, r.width, 3, padding=1)
                blocks.append(Block(r, layer, residual and i > 0, pool=i in pools))
                side = side // 2 if i in pools else side
            self.head = nn.Linear(r.width * side * side, classes)
            self.flat_first = False
        self.blocks = nn.ModuleList(blocks)
        self.output_relu = r.output_relu

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) if self.flat_first else x
        for block in self.blocks:
            x = block(x)
        x = self.head(x.flatten(1))
        return functional.relu(x) if self.output_relu else x


def build(recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the recipe's model; the same recipe always gives the same weights."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        model = Net(recipe, shape, classes)
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        for layer in layers:
            last = layer is model.head
            _initialise(recipe, layer, last)
        return model


@torch.no_grad()
def _initialise(r: Recipe, layer: nn.Linear | nn.Conv2d, last: bool) -> None:
    assert layer.bias is not None
    fan_in = layer.weight[0].numel()
    if r.init == "critical":
        sigma_w2, sigma_b2 = (1.0, 0.0) if last else CRITICAL[r.activation]
        layer.weight.normal_(0, math.sqrt(sigma_w2 / fan_in))
        layer.bias.normal_(0, math.sqrt(sigma_b2))
    elif r.init == "glorot":
        nn.init.xavier_uniform_(layer.weight)
        layer.bias.zero_()
    if last and r.zero_head:
        layer.weight.zero_()
    if r.weight_std is not None:
        layer.weight.normal_(0, r.weight_std)
        layer.bias.zero_()
    if not last or r.output_relu:
        layer.bias.add_(r.bias_shift)
    if not last:
        layer.weight.mul_(r.weight_gain)
    if r.constant_weight is not None:
        layer.weight.fill_(r.constant_weight)
        layer.bias.zero_()


def optimizer_of(recipe: Recipe) -> Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]:
    """Return what makes the recipe's optimiser from parameters."""
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
        "nesterov": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }
    return functools.partial(kinds[recipe.optimizer], **common)


def draw(pair: int, attempt: int) -> tuple[Recipe, Recipe]:
    """Return the healthy recipe of a pair and its broken twin, alike but for what is broken."""
    fault = FAULTS[pair % len(FAULTS)]
    g = seeded(20, pair, attempt)

    def pick(*choices):  # type: ignore[no-untyped-def]
        return choices[int(g.integers(len(choices)))]

    deep = fault in ("vanishing: small weights", "exploding: large weights")
    conv = pick(False, False, True) if fault not in ("vanishing: sigmoid", "underflow") else False
    depth = pick(1, 2, 3, 4, 6) if not conv else pick(2, 3, 4)
    family = pick("mlp", "mlp", "resmlp") if not conv else pick("cnn", "cnn", "rescnn")
    activation = pick("relu", "leaky_relu", "tanh", "lecun", "selu", "elu", "gelu", "silu")
    norm = pick("none", "none", "batch", "layer")
    if deep:
        depth = pick(8, 10, 14, 20) if not conv else pick(6, 8, 10)
        family, norm = ("cnn" if conv else "mlp"), "none"
        activation = pick("relu", "leaky_relu", "tanh", "lecun")
    elif fault == "underflow":
        depth, activation = pick(24, 30, 40), pick("tanh", "lecun", "relu")
        family, norm = "mlp", "none"
    elif fault == "vanishing: sigmoid":
        depth, family, norm = pick(5, 6, 8, 10), "mlp", "none"
        activation = pick("relu", "tanh", "lecun", "leaky_relu")
    elif fault == "dead units":
        activation, family = "relu", ("cnn" if conv else "mlp")
        norm = "none"
    elif fault == "saturated":
        activation, norm = pick("tanh", "tanh", "sigmoid"), "none"
        depth = pick(1, 2) if activation == "sigmoid" else pick(2, 3, 4)
        family = "cnn" if conv else "mlp"
    elif fault.startswith("inputs"):
        norm, family = "none", ("cnn" if conv else "mlp")
    elif fault == "symmetric initialisation":
        family = "cnn" if conv else "mlp"
    elif fault == "constant outputs":
        depth = pick(1, 2, 3, 4)
    optimizer = pick("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")
    middle = {
        "sgd": 0.1,
        "momentum": 0.02,
        "nesterov": 0.02,
        "adam": 1e-3,
        "adamw": 1e-3,
        "rmsprop": 5e-4,
    }[optimizer]
    if depth >= 8:
        middle /= 3
    # Standardised, like images from 0 to 1, or somewhat small.
    gain, offset = pick((1.0, 0.0), (1.0, 0.0), (0.3, 0.4), (0.4, 0.0))
    any_init = activation != "sigmoid" and (depth <= 4 or norm != "none" or family[:3] == "res")
    healthy = Recipe(
        name=f"{pair:03d}-healthy",
        seed=pair * 100 + attempt,
        data=pick("mnist small", "gratings") if conv else pick("mnist", "clusters", "teacher"),
        family=family,
        depth=depth,
        width=pick(6, 8, 12, 16) if conv else pick(24, 32, 48, 64, 96, 128),
        activation=activation,
        functional=pick(True, False),
        norm=norm,
        dropout=pick(0.0, 0.0, 0.0, 0.1, 0.2) if depth <= 6 else 0.0,
        init=pick("critical", "torch", "glorot") if any_init else "critical",
        optimizer=optimizer,
        learning_rate=float(middle * 10 ** g.uniform(-0.6, 0.5)),
        batch=pick(32, 64, 128),
        input_gain=gain,
        input_offset=offset,
        zero_head=bool(g.random() < 0.15),
        weight_decay=pick(0.0, 0.0, 1e-4, 1e-3),
    )
    return healthy, _broken(healthy, fault, g)


def _broken(healthy: Recipe, fault: str, g: np.random.Generator) -> Recipe:
    def log_uniform(low: float, high: float) -> float:
        return float(10 ** g.uniform(math.log10(low), math.log10(high)))

    coin = g.random() < 0.5
    sign = -1.0 if g.random() < 0.5 else 1.0
    changes: dict[str, object] = {
        "vanishing: small weights": {"init": "torch"}
        if coin and healthy.activation in ("relu", "leaky_relu")
        else {"weight_gain": float(g.uniform(0.2, 0.75))},
        "vanishing: sigmoid": {"activation": "sigmoid", "init": "glorot" if coin else "torch"},
        "exploding: large weights": {"weight_gain": log_uniform(1.5, 6)},
        "dead units": {"bias_shift": -log_uniform(1.5, 30)},
        "saturated": {"weight_gain": log_uniform(5, 60)},
        "underflow": {"weight_std": log_uniform(0.001, 0.03)},
        "learning rate too high": {"learning_rate": healthy.learning_rate * log_uniform(15, 3000)},
        "learning rate too low": {"learning_rate": healthy.learning_rate / log_uniform(100, 1e5)},
        "inputs too large": {"input_gain": log_uniform(30, 1e5)},
        "inputs too small or off centre": {"input_gain": log_uniform(1e-5, 3e-2)}
        if coin
        else {"input_offset": sign * log_uniform(8, 1000)},
        "constant outputs": {"output_relu": True, "bias_shift": -log_uniform(2, 30)},
        "symmetric initialisation": {"constant_weight": 0.0 if coin else log_uniform(0.003, 0.1)},
    }[fault]
    assert isinstance(changes, dict)
    name = healthy.name.replace("healthy", "faulty")
    return replace(healthy, name=name, fault=fault, **changes)
