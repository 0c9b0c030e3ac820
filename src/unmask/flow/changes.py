"""Changes that fix a network, each applied to a copy, with code to paste."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from unmask.flow.check import MakeOptimizer
from unmask.flow.feed import Loss
from unmask.flow.judge import fixes
from unmask.flow.measure.layers import layers_of
from unmask.flow.measure.slopes import name_of
from unmask.flow.measure.statistics import FlowStats
from unmask.flow.measure.wrappers import unwrap

REPLACEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "leaky_relu": nn.functional.leaky_relu,
}


_SOFTMAXES = (
    *(nn.functional.softmax, torch.softmax, Tensor.softmax),
    *(nn.functional.log_softmax, torch.log_softmax, Tensor.log_softmax),
)


@dataclass(frozen=True)
class Fix:
    """One change of the network, of its training, or of its loss.

    Args:
        name: of the change.
        sets: the value it sets, in words.
        code: to paste.
        apply: changes a network and returns it.
        learning_rate: of the training, None to keep it.
        clip: the largest norm of the gradient, None for no clipping.
        weight_decay: of the optimiser, None to keep it.
        complete: whether the optimiser gets the parameters that it lacks.
        loss: makes another loss of the present one, None to keep it.
    """

    name: str
    sets: str
    code: str
    apply: Callable[[nn.Module], nn.Module] = lambda model: model
    learning_rate: float | None = None
    clip: float | None = None
    weight_decay: float | None = None
    complete: bool = False
    loss: Callable[[Loss], Loss] | None = None


def critical_initialisation(
    stats: FlowStats, activation: str | None = None, correction: float = 1.0
) -> Fix:
    """Initialise all weights at the critical point of the network's activation, or of another one.

    Args:
        stats: of the network's first step.
        activation: None for the network's own.
        correction: a factor on the theory's sigma_w2, which ignores scales around the activation,
            skipped layers and normalisation.
    """
    name = activation or fixes.main_activation(stats) or "relu"
    sigma_w2, sigma_b2 = fixes.critical(name) or (1.0, 0.0)
    sigma_w2 *= correction
    hidden = [x.name for x in stats.matrix_layers[:-1]]
    last = stats.matrix_layers[-1].name if stats.matrix_layers else ""

    def apply(model: nn.Module) -> nn.Module:
        for layer in layers_of(model):
            for weight in layer.weights:
                if weight.ndim < 2:
                    continue
                is_last = layer.name == last
                variance = (1.0 if is_last else sigma_w2) / weight[0].numel()
                nn.init.normal_(weight, 0, math.sqrt(variance))
            bias = getattr(layer.module, "bias", None)
            if isinstance(bias, Tensor):
                # Gains and shifts of normalisation are reset to 1 and 0.
                nn.init.normal_(bias, 0, math.sqrt(sigma_b2) if layer.name in hidden else 0.0)
            if not layer.matrix:
                for gain in layer.weights:
                    nn.init.constant_(gain, 0.0 if gain is bias else 1.0)
        return model

    code = f"""\
for name in {hidden!r}:
    layer = model.get_submodule(name)
    torch.nn.init.normal_(layer.weight, std=({sigma_w2:.4g} / layer.weight[0].numel()) ** 0.5)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias, std={sigma_b2:.4g} ** 0.5)
layer = model.get_submodule({last!r})
torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
if layer.bias is not None:
    torch.nn.init.zeros_(layer.bias)"""
    sets = f"sigma_w2 = {sigma_w2:.3g}, sigma_b2 = {sigma_b2:.2g}"
    return Fix("critical initialisation", sets, code, apply)


def other_activation(old: str, new: str) -> Fix:
    """Replace an activation by another one, wherever it is applied as a module or a function."""
    return Fix(
        "activation",
        f"{new} instead of {old}",
        f"# Use torch.nn.functional.{new} (or its module) wherever {old} stands.",
        lambda model: Swapped(model, {old: REPLACEMENTS[new]}, output_layer=None),
    )


def bare_output(stats: FlowStats) -> Fix:
    """Pass the loss the output layer's own outputs."""
    last = stats.matrix_layers[-1].name
    return Fix(
        "no activation on the output layer",
        "the loss gets the output layer's own outputs",
        f"# Return what {last} gives, without an activation after it.",
        lambda model: Swapped(model, {}, output_layer=last),
    )


def class_scores(stats: FlowStats, classes: int) -> Fix:
    """Return one output for each class without an activation, and use cross-entropy."""
    last = stats.matrix_layers[-1].name

    def apply(model: nn.Module) -> nn.Module:
        head = model.get_submodule(last)
        if isinstance(head, nn.Linear) and head.out_features < classes:
            wider = nn.Linear(head.in_features, classes, bias=head.bias is not None)
            _replace(model, last, wider.to(head.weight.device, head.weight.dtype))
        return Swapped(model, {}, output_layer=last)

    return Fix(
        "cross-entropy on one output a class",
        f"{classes} bare outputs",
        f"# Let {last} give {classes} outputs, with no activation after it.\n"
        "loss = torch.nn.functional.cross_entropy(model(x), y)",
        apply,
        loss=lambda given: nn.functional.cross_entropy,
    )


def one_shape() -> Fix:
    """Reshape outputs to the shape of their targets before they are compared."""

    def reshaped(given: Loss) -> Loss:
        def loss(output: Any, targets: Any) -> Tensor:
            fits = output.numel() == targets.numel()
            return given(output.reshape(targets.shape) if fits else output, targets)

        return loss

    code = "output = model(x).reshape(y.shape)"
    return Fix("one shape", "outputs in the shape of their targets", code, loss=reshaped)


def minimised() -> Fix:
    """Remove the sign from a loss that is maximised."""
    return Fix(
        "sign of the loss",
        "minimised",
        "loss = -loss  # as it was before the minus sign",
        loss=lambda given: lambda output, targets: -given(output, targets),
    )


def complete_optimizer() -> Fix:
    """Pass the optimiser all trainable parameters."""
    code = "optimizer = type(optimizer)(model.parameters(), **optimizer.defaults)"
    return Fix("optimiser", "of all parameters", code, complete=True)


def weight_decay(decay: float = 1e-4) -> Fix:
    """Train with a common weight decay."""
    code = f'for group in optimizer.param_groups:\n    group["weight_decay"] = {decay:g}'
    return Fix("weight decay", f"{decay:g}", code, weight_decay=decay)


def standardised_inputs(stats: FlowStats) -> Fix:
    """Shift and scale the inputs to mean 0 and standard deviation 1."""
    assert stats.input is not None
    mean, std = stats.input.mean, stats.input.std or 1.0
    return Fix(
        "inputs",
        f"(x - {mean:.4g}) / {std:.4g}",
        f"x = (x - {mean:.6g}) / {std:.6g}",
        lambda model: Standardised(model, mean, std),
    )


def normalisation(stats: FlowStats) -> Fix:
    """Add batch normalisation after every hidden layer."""
    hidden = [x.name for x in stats.matrix_layers[:-1]]

    def apply(model: nn.Module) -> nn.Module:
        for layer in layers_of(model):
            norm = _norm_for(layer.module)
            if layer.name in hidden and norm is not None:
                _replace(model, layer.name, nn.Sequential(layer.module, norm))
        return model

    code = f"# Put torch.nn.BatchNorm1d or BatchNorm2d after each of {hidden!r}."
    return Fix("normalisation", "batch normalisation after every hidden layer", code, apply)


def residual(stats: FlowStats) -> Fix:
    """Add the input of every hidden layer of equal width to its output."""
    hidden = [x.name for x in stats.matrix_layers[:-1]]

    def apply(model: nn.Module) -> nn.Module:
        for layer in layers_of(model):
            if layer.name in hidden and _keeps_shape(layer.module):
                _replace(model, layer.name, Residual(layer.module))
        return model

    code = f"# In each of {hidden!r} whose width does not change: return x + layer(x)."
    return Fix("residual connections", "x + layer(x) where widths agree", code, apply)


def learning_rate(rate: float) -> Fix:
    """Train with another learning rate."""
    said = fixes.rounded(rate)
    code = f'for group in optimizer.param_groups:\n    group["lr"] = {said}'
    return Fix("learning rate", said, code, learning_rate=float(said))


def clipping(norm: float = 1.0) -> Fix:
    """Clip the norm of the gradient before every step."""
    code = f"torch.nn.utils.clip_grad_norm_(model.parameters(), {norm:g})"
    return Fix("clipping", f"gradient norm at most {norm:g}", code, clip=norm)


@dataclass(frozen=True)
class Mended:
    """The fixes to apply, in their order, to a network and its training."""

    fixes: tuple[Fix, ...]

    def model(self, model: nn.Module, seed: int) -> nn.Module:
        """Return a fixed copy; weights that are drawn again come from seed."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            mended = copy.deepcopy(unwrap(model))
            for fix in self.fixes:
                mended = fix.apply(mended)
        return mended

    def optimizer(self, make: MakeOptimizer, model: nn.Module) -> Optimizer:
        """Return the optimiser of a fixed network, with the learning rate of the fix."""
        optimizer = make(model.parameters())
        for fix in self.fixes:
            held = {id(p) for g in optimizer.param_groups for p in g["params"]}
            lacking = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
            if fix.complete and lacking:
                optimizer.add_param_group({"params": lacking})
            for group in optimizer.param_groups:
                if fix.learning_rate is not None:
                    group["lr"] = fix.learning_rate
                if fix.weight_decay is not None:
                    group["weight_decay"] = fix.weight_decay
        return optimizer

    def loss(self, given: Loss) -> Loss:
        """Return the loss of the fixed training."""
        for fix in self.fixes:
            given = fix.loss(given) if fix.loss is not None else given
        return given

    def clip(self, model: nn.Module) -> None:
        """Clip the gradients, where that is one of the fixes."""
        for fix in self.fixes:
            if fix.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), fix.clip)


class Standardised(nn.Module):
    """A network whose inputs are shifted and scaled first."""

    def __init__(self, model: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, x: Tensor) -> Any:
        """Return the network's output for (x - mean) / std."""
        return self.model((x - self.mean) / self.std)


class Residual(nn.Module):
    """A layer that adds its input to its output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return x + layer(x)."""
        y: Tensor = x + self.layer(x)
        return y


class Swapped(nn.Module):
    """A network in which activations are replaced as it runs, including functions."""

    def __init__(
        self,
        model: nn.Module,
        functions: dict[str, Callable[[Tensor], Tensor]],
        output_layer: str | None,
    ) -> None:
        super().__init__()
        self.model = model
        self._functions = functions
        self._after_output = False
        if output_layer is not None:
            # Each earlier wrapper around the network shifts the names by "model.".
            inner = next(
                m
                for n, m in model.named_modules()
                if n == output_layer or n.endswith(f"model.{output_layer}")
            )
            inner.register_forward_hook(self._output_reached)

    def _output_reached(self, module: nn.Module, args: Any, output: Any) -> None:
        self._after_output = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's output with the activations replaced."""
        self._after_output = False
        with _Swap(self):
            return self.model(*args, **kwargs)

    def instead(self, name: str) -> Callable[[Tensor], Tensor] | None:
        """Return the replacement of the activation of that name at the current position."""
        if self._after_output:
            return lambda x: x
        return self._functions.get(name)


class _Swap(TorchFunctionMode):
    def __init__(self, model: Swapped) -> None:
        super().__init__()
        self._model = model

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = name_of(func) or ("softmax" if func in _SOFTMAXES else None)
        instead = self._model.instead(name) if name is not None else None
        if instead is not None and args:
            return instead(args[0])
        return func(*args, **(kwargs or {}))


def _norm_for(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.Linear):
        return nn.BatchNorm1d(module.out_features)
    if isinstance(module, nn.Conv2d):
        return nn.BatchNorm2d(module.out_channels)
    return None


def _keeps_shape(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return module.in_features == module.out_features
    if isinstance(module, nn.Conv2d):
        same = module.in_channels == module.out_channels and module.stride == (1, 1)
        sides = zip(module.kernel_size, module.padding, strict=False)
        return same and all(isinstance(p, int) and 2 * p == k - 1 for k, p in sides)
    return False


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
