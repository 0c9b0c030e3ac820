"""The model's output, the losses it is passed to, and the line of the user's code.

All are plain values, kept in FlowStats beside the statistics of the layers.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.flow.measure.graph import last_operation, scrambled_in
from unmask.flow.measure.targets import (
    beyond,
    class_weights,
    crowded,
    endless,
    explained,
    given_away,
    ignored,
    normalised,
    positives,
    shown,
    variation,
)

if TYPE_CHECKING:
    from torch import Tensor

_OURS = str(Path(__file__).parents[2])
# The scripts are those of installed commands: unmask itself, torchrun.
_PATHS = ("stdlib", "platstdlib", "scripts")
_LIBRARIES = tuple({_OURS, *(sysconfig.get_path(name) for name in _PATHS)})
_INSTALLED = ("site-packages", "dist-packages")
# A cut of a whole region, as users write it.
REENTRANT = "checkpoint(use_reentrant=True)"
# What a distribution draws without a graph.
SAMPLE = ".sample()"
# Attention that sees the padding of its texts and nothing else.
REVERSED_MASK = "a reversed mask"
# The first time steps of a ctc_loss that are added up.
_TIMES = 8


@dataclass(frozen=True)
class OutputStats:
    """The model's output.

    Args:
        size: entries of an image's output.
        variation: the standard deviation over images relative to the RMS, None for a batch of one.
        operation: the last, as in graph.LastOperation, or "dropout".
        dim: the dimension that a softmax is taken over.
    """

    size: int
    variation: float | None
    operation: str | None = None
    dim: int | None = None


@dataclass(frozen=True)
class LossCall:
    """One call of a loss of torch.nn.functional: its inputs and its value.

    Args:
        name: of the function; "difference" for a loss computed by hand that broadcasts.
        shape: of the outputs that it was given.
        target_shape: of the targets.
        low: the smallest entry of the outputs.
        high: the largest.
        target_low: the smallest entry of the targets.
        target_high: the largest.
        integers: whether the targets have an integer dtype.
        classes: the number of targets of each class; {} unless they are integers of at most 10,000
            values, or whole floats of one dimension.
        operation: the last operation of the outputs, as in graph.LastOperation, or "dropout".
        dim: the dimension of a softmax.
        width: the number of entries that it is taken over.
        normalised: the dimension over which the outputs, or for nll_loss their exponentials, are
            probabilities: at least 0, with a sum of 1. For ctc_loss 1 is the last one.
        reduction: "mean", "sum" or "none".
        value: the loss, None where it is not reduced.
        location: "file:line" of the call in the user's code, None where it isn't known.
        beyond: the fraction of the targets outside the range of the last operation.
        total: the sum of the losses where they are not reduced.
        own: whether it was given the model's output, possibly in another shape, rather than
            something computed from it.
        variation: of the outputs over images, relative to their RMS.
        scrambled: the shape of scores whose classes a view mixed with their places, or None.
        ignored: the fraction of the labels that ignore_index leaves out at words that differ, so
            that they are no padding, or None.
        explained: the fraction of the targets' variance over images that the outputs explain, at
            most 1, None for classes and for targets that don't vary.
        weights: of the classes, None where there are none, or many.
        given_away: whether the model was given the targets themselves to read.
        crowded: the fraction of the images that have no or several of the classes, where targets
            are zeros and ones.
        swapped: whether the targets have a graph and the outputs have none.
        positives: the fraction of ones where each image has one target, 0 or 1, or None.
        endless: whether every text ends with one word that no label is.
        heavier: the weight of these in the loss, beside that of zeros.
        scale: that cosines were multiplied by, see graph.LastOperation.
        shown: whether the words that are to be guessed stand in the text that the model reads.
        left_out: whether no backward pass of the step had a path to the outputs it was given.
    """

    name: str
    shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    low: float
    high: float
    target_low: float
    target_high: float
    integers: bool
    classes: dict[int, int]
    operation: str | None
    dim: int | None
    reduction: str
    value: float | None
    location: str | None
    own: bool = True
    variation: float | None = None
    width: int | None = None
    normalised: int | None = None
    beyond: float = 0.0
    total: float | None = None
    scrambled: tuple[int, ...] | None = None
    ignored: float | None = None
    explained: float | None = None
    weights: tuple[float, ...] | None = None
    given_away: bool = False
    crowded: float = 0.0
    swapped: bool = False
    positives: float | None = None
    heavier: float = 1.0
    endless: bool = False
    scale: float = 1.0
    shown: bool = False
    left_out: bool = False


@dataclass(frozen=True)
class Cut:
    """A place where the graph is cut.

    Args:
        operation: that passes no gradient, as users write it.
        layer: the layer that it follows.
        location: "file:line" in the user's code.
    """

    operation: str
    layer: str | None
    location: str | None


def user_line(depth: int = 1) -> str | None:
    """Return "file:line" of the innermost frame of the user's code, or None."""
    frame = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            return f"{relative(name)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


def runs_inside(package: str) -> bool:
    """Return whether the code of a package called this, directly or not."""
    frame = sys._getframe(1)
    while frame is not None:
        if f"/{package}/" in Path(frame.f_code.co_filename).as_posix():
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def without_graph() -> str:
    """Return what it is that runs a layer without a graph, as users write it."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(("torch/utils/checkpoint.py", "checkpoint.pyc")):
            return REENTRANT
        frame = frame.f_back  # type: ignore[assignment]
    return "torch.no_grad()"


def is_users(name: str) -> bool:
    """Return whether a file of code is the user's, not a library's or Unmask's."""
    return not name.startswith((*_LIBRARIES, "<")) and not any(i in name for i in _INSTALLED)


def relative(name: str) -> str:
    """Return a file's path relative to the working folder, if it lies in it."""
    path = Path(name)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else name


def logits_in(output: Any) -> Any:
    """Return the tensor of a model's output that a loss is meant for, or None where it isn't clear.

    Args:
        output: a tensor, which is returned; else an object or mapping with "logits", "out" or
            "prediction_logits", or a collection, whose first floating-point tensor is taken.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return output
    for name in ("logits", "out", "prediction_logits"):
        found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if isinstance(found, torch.Tensor):
            return found
    values: Any = output.values() if isinstance(output, dict) else output
    if isinstance(values, (tuple, list)) or isinstance(output, dict):
        for value in values:
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 0:
                return value
    return None


LOSSES = (
    *("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"),
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "multi_margin_loss"),
    "ctc_loss",
)

# Whose targets are classes, and those whose targets may be masks.
CLASSIFIERS = ("cross_entropy", "nll_loss")
MASKED = (*CLASSIFIERS, "binary_cross_entropy", "binary_cross_entropy_with_logits")

# Of which it doesn't matter which argument is called the target.
SYMMETRIC = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def _only_target_learns(output: Any, target: Any) -> bool:
    return not getattr(output, "requires_grad", True) and getattr(target, "requires_grad", False)


class LossTap:
    """While entered, reports every call of one of torch's losses, and changes nothing.

    Exceptions of the callbacks don't reach the training.

    Args:
        seen: receives the name, the input, the target, the other keyword arguments and the result
            of each call.
        failed: receives the name, the input, the target and the exception of each call that raises.
        every: whether to report losses too that were imported by their name before; torch then
            reports every one of its functions, which is affordable for a few steps only.
    """

    def __init__(
        self,
        seen: Callable[[str, Any, Any, dict[str, Any], Any], None],
        failed: Callable[[str, Any, Any, BaseException], None] | None = None,
        every: bool = False,
    ) -> None:
        self._seen, self._failed = seen, failed
        self._originals: dict[str, Any] = {}
        self._mode: Any = _loss_mode(self) if every else None

    def __enter__(self) -> LossTap:
        from torch.nn import functional

        if self._mode is not None:
            self._mode.__enter__()
            return self
        for name in LOSSES:
            self._originals[name] = getattr(functional, name)
            setattr(functional, name, self._tapped(name, self._originals[name]))
        return self

    def __exit__(self, *args: object) -> None:
        from torch.nn import functional

        if self._mode is not None:
            self._mode.__exit__(*args)
        for name, original in self._originals.items():
            if getattr(getattr(functional, name), "__wrapped__", None) is original:
                setattr(functional, name, original)
        self._originals = {}

    def _tapped(self, name: str, original: Any) -> Any:
        import functools

        import torch

        @functools.wraps(original)
        def loss(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return original(*args, **kwargs)
            return self.call(name, original, args, kwargs)

        return loss

    def call(self, name: str, original: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a loss and report it."""
        try:
            result = original(*args, **kwargs)
        except Exception as error:
            self._quietly(self._failed, name, args, kwargs, error)
            raise
        self._quietly(self._seen, name, args, kwargs, result)
        return result

    @staticmethod
    def _quietly(tell: Any, name: str, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        if tell is None:
            return
        try:
            given = {**dict(zip(("input", "target"), args, strict=False)), **kwargs}
            if name in SYMMETRIC and _only_target_learns(given.get("input"), given.get("target")):
                given["input"], given["target"] = given["target"], given["input"]
            rest = {k: v for k, v in kwargs.items() if k not in ("input", "target")}
            if isinstance(result, BaseException):
                tell(name, given.get("input"), given.get("target"), result)
            else:
                tell(name, given.get("input"), given.get("target"), rest, result)
        except Exception:
            return


def _loss_mode(tap: LossTap) -> Any:
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    names = {getattr(functional, name): name for name in LOSSES}

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func in names:
                return tap.call(names[func], func, args, kwargs or {})
            return func(*args, **(kwargs or {}))

    return Mode()


def loss_call(
    name: str,
    output: Any,
    target: Any,
    options: dict[str, Any],
    result: Any,
    texts: Sequence[Tensor] = (),
) -> LossCall:
    """Return the record of a loss's call.

    Args:
        name: of the function in torch.nn.functional.
        output: its first argument, a tensor.
        target: its second, likewise.
        options: its other arguments by name.
        result: the loss.
        texts: that the model was given, int64[texts, places].
    """
    import torch

    with torch.no_grad():
        out, aim = output.detach(), target.detach()
        integers = not aim.is_floating_point() and not aim.is_complex()
        classes: dict[int, int] = {}
        if integers and aim.numel():
            values, counts = aim.flatten().unique(return_counts=True)
            if len(values) <= 10_000:
                classes = dict(zip(values.tolist(), counts.tolist(), strict=True))
        elif aim.numel() and aim.ndim <= 1 and bool((aim == aim.round()).all()):
            values, counts = aim.flatten().unique(return_counts=True)
            classes = {int(v): n for v, n in zip(values.tolist(), counts.tolist(), strict=True)}
        last = last_operation(output)
        scalar = isinstance(result, torch.Tensor) and result.numel() == 1
        return LossCall(
            name=name,
            shape=tuple(out.shape),
            target_shape=tuple(aim.shape),
            low=float(out.min()) if out.numel() else 0.0,
            high=float(out.max()) if out.numel() else 0.0,
            target_low=float(aim.min()) if aim.numel() else 0.0,
            target_high=float(aim.max()) if aim.numel() else 0.0,
            integers=integers,
            classes=classes,
            operation=last.name,
            dim=last.dim,
            width=last.width,
            scale=last.scale,
            beyond=beyond(aim, last.name),
            total=float(result.detach().sum()) if not scalar else None,
            normalised=normalised(out, logs=name == "nll_loss")
            if name != "ctc_loss"
            else normalised(out[:_TIMES].flatten(0, -2), logs=True),
            reduction=str(options.get("reduction", "mean")),
            value=float(result.detach()) if scalar else None,
            location=user_line(2),
            variation=variation(out),
            scrambled=scrambled_in(output),
            ignored=ignored(texts, aim, options.get("ignore_index", -1)),
            given_away=given_away(texts, aim),
            crowded=crowded(aim),
            swapped=_only_target_learns(output, target),
            positives=positives(aim),
            endless=endless(texts, aim, options.get("ignore_index", -100)),
            shown=shown(texts, aim, options.get("ignore_index", -100)),
            heavier=_weight(options.get("pos_weight")),
            weights=class_weights(options.get("weight")),
            explained=explained(out.sigmoid() if name.endswith("with_logits") else out, aim),
        )


def _weight(given: Any) -> float:
    return float(given) if hasattr(given, "numel") and given.numel() == 1 else 1.0


def difference_call(shape: tuple[int, ...], target_shape: tuple[int, ...]) -> LossCall:
    """Return the call of a loss computed by hand, of which only the shapes are known.

    Args:
        shape: of the outputs.
        target_shape: of the targets.
    """
    return LossCall(
        name="difference",
        shape=shape,
        target_shape=target_shape,
        low=0.0,
        high=0.0,
        target_low=0.0,
        target_high=0.0,
        integers=False,
        classes={},
        operation=None,
        dim=None,
        reduction="mean",
        value=None,
        location=user_line(2),
    )
