"""The gradient probe as a callback of Lightning's Trainer and of Hugging Face's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakMethod

from torch import nn

from unmask.errors import UserError
from unmask.flow.judge.verdicts import verdicts
from unmask.flow.measure.calls import LossTap
from unmask.flow.measure.probe import DEFAULT_EVERY, GradientProbe, Scaler
from unmask.flow.measure.statistics import FlowStats
from unmask.flow.measure.taps import Tapped
from unmask.verdict import Verdict


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls the method for as long as its object lives."""
    reference = WeakMethod(method)

    def call(*arguments: Any) -> None:
        alive = reference()
        if alive is not None:
            alive(*arguments)

    return call


class ProbeCallback:
    """The base of both callbacks: a probe that runs from the start of a training to its end.

    It ends with the training, with an exception that the trainer reports, and at the latest when
    the callback itself is deleted.
    """

    probe: GradientProbe | None = None
    _taps: tuple[LossTap, Tapped] | None = None
    _every = DEFAULT_EVERY

    @property
    def history(self) -> list[FlowStats]:
        """Return the steps probed so far."""
        return self.probe.history if self.probe else []

    @property
    def verdicts(self) -> list[Verdict]:
        """Return what is wrong by the steps probed so far."""
        return verdicts(self.history)

    def start(self, model: nn.Module, scaler: Scaler | None) -> None:
        """Begin to probe a training."""
        self.stop()
        self.probe = GradientProbe(model, every=self._every, scaler=scaler)
        self.probe.__enter__()
        # The taps are global: a strong reference would keep the callback and its hooks forever.
        self._taps = LossTap(_weakly(self._loss_seen)), Tapped(backward=_weakly(self._backward))
        for tap in self._taps:
            tap.__enter__()

    def _loss_seen(self, name: str, output: Any, target: Any, options: Any, result: Any) -> None:
        window = self.probe.window if self.probe else None
        if window is not None and result.requires_grad:
            window.see_loss(name, output, target, options, result)

    def _backward(self, tensors: Any) -> None:
        window = self.probe.window if self.probe else None
        loss = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
        if window is not None and loss.numel() == 1:
            window.see_backward(loss, float(loss.detach()))

    def stop(self) -> None:
        """End the probing; a second call does nothing."""
        taps, self._taps = self._taps, None
        for tap in taps or ():
            tap.__exit__()
        if self.probe is not None:
            self.probe.__exit__(None, None, None)

    def __del__(self) -> None:
        self.stop()


def lightning_callback(*, every: int = DEFAULT_EVERY) -> Any:
    """Return a callback for lightning.Trainer(callbacks=[...]), with history and verdicts.

    Args:
        every: the interval of probed steps, see GradientProbe.

    Raises:
        UserError: when neither lightning nor pytorch_lightning is installed.
    """
    library = _first_installed("lightning.pytorch", "pytorch_lightning")

    class LightningProbe(ProbeCallback, library.Callback):  # type: ignore[name-defined,misc]
        _every = every

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            plugin = getattr(trainer, "precision_plugin", None)
            self.start(pl_module, getattr(plugin, "scaler", None))

        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            self.stop()

        def on_exception(self, trainer: Any, pl_module: nn.Module, exception: Any) -> None:
            self.stop()

    return LightningProbe()


def hugging_face_callback(*, every: int = DEFAULT_EVERY) -> Any:
    """Return a callback for transformers.Trainer(callbacks=[...]), with history and verdicts.

    Args:
        every: the interval of probed steps, see GradientProbe.

    Raises:
        UserError: when transformers isn't installed.
    """
    library = _first_installed("transformers")

    class HuggingFaceProbe(ProbeCallback, library.TrainerCallback):  # type: ignore[name-defined,misc]
        _every = every

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.start(kwargs["model"], getattr(kwargs.get("optimizer"), "scaler", None))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.stop()

    return HuggingFaceProbe()


def _first_installed(*names: str) -> ModuleType:
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.split(".", maxsplit=1)[0]:
                raise
    raise UserError(
        f"this callback needs {names[0].split('.', maxsplit=1)[0]}",
        do=f"pip install {names[0].split('.')[0]}",
    )
