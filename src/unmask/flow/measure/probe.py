"""GradientProbe: per-layer statistics of the gradient flow in anyone's training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from unmask.errors import UserError
from unmask.flow.measure.layers import Units, layers_of
from unmask.flow.measure.sequences import Sequences
from unmask.flow.measure.statistics import FlowStats
from unmask.flow.measure.window import Window
from unmask.flow.measure.wrappers import unwrap

EARLY_STEPS = frozenset((0, 1, 2, 4, 8))
DEFAULT_EVERY = 100


class Scaler(Protocol):
    """The part of a torch.amp.GradScaler that the probe uses."""

    def get_scale(self) -> float:
        """Return the factor on the loss."""
        ...


class GradientProbe:
    """Collects the gradient flow of a network while its own training loop runs.

        with GradientProbe(model) as probe:
            for x, y in loader:
                ...  # the loop as it was
        probe.history  # one FlowStats for each probed step

    Steps 0, 1, 2, 4, 8 and every every-th are probed; between them nothing is attached to the
    network, and nothing is ever stored in it. A step begins with the first forward pass and ends
    when every optimiser that holds its parameters has stepped, so gradients may be accumulated over
    any number of passes; for a parameter that no optimiser holds, the step ends when one of them
    steps again. A step that a GradScaler skips is probed again. Passes without gradients, such as a
    validation, are left out, and so are the passes that torch.utils.checkpoint repeats. A compiled
    network runs uncompiled during probed steps. Errors of the measurement never reach the training;
    problem holds their text.

    Args:
        model: the network, in any wrapper that unwrap knows.
        every: the interval of later probed steps, at least 1.
        scaler: the torch.amp.GradScaler, if there is one, by whose scale the gradients of
            activations are divided.
        optimizers: those that make a step together, if they are known beforehand.

    Raises:
        UserError: for an interval below 1 and for a network that can't be measured.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> with unmask.GradientProbe(network, every=1) as probe:
        ...     nn.functional.cross_entropy(
        ...         network(torch.randn(32, 4)), torch.arange(32) % 3
        ...     ).backward()
        >>> [layer.name for layer in probe.history[0].layers]
        ['0', '2']
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = DEFAULT_EVERY,
        scaler: Scaler | None = None,
        optimizers: Sequence[Optimizer] = (),
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UserError(
                "the probe's interval must be a whole number of steps", got=every, do="100 is usual"
            )
        self.model = unwrap(model)
        self.history: list[FlowStats] = []
        self.step, self._made = 0, 0
        self.problem: str | None = None
        self.units: dict[str, Units] = {}
        self.sequences = Sequences()
        self.scaler = scaler
        # The other optimisers that may step; a watcher that knows all of them sets it.
        self.optimizers: Callable[[], list[Optimizer]] = list
        self._every, self._expected = every, {id(o) for o in optimizers}
        self.refresh()
        self._steps: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        self._optimizer_hooks: list[Any] = []
        self._window: Window | None = None

    @property
    def now(self) -> int:
        """Return the current step, counted from the start of a run that was resumed."""
        return self._made + self.step

    def scale_by(self, scaler: Scaler) -> None:
        """Learn of a GradScaler, possibly in the middle of a step that it scales."""
        self.scaler = scaler
        if self._window is not None:
            self._window.scale = scaler.get_scale()

    def refresh(self) -> None:
        """Read the model's modules again, which may have changed."""
        self.layers = layers_of(self.model)
        self.by_module = {id(x.module): x for x in self.layers}
        self.modules = {id(m): n for n, m in self.model.named_modules()}
        self.parameters = {id(p): n for n, p in self.model.named_parameters()}

    @property
    def window(self) -> Window | None:
        """Return the window of the step that is being probed, or None between probed steps."""
        return self._window

    @property
    def stats(self) -> FlowStats:
        """Return the latest probed step.

        Raises:
            UserError: when no step was probed.
        """
        if not self.history:
            raise UserError(
                "the probe has seen no training step",
                do="run forward, backward and optimizer.step() inside the with block",
            )
        return self.history[-1]

    def __enter__(self) -> GradientProbe:
        if self._optimizer_hooks:
            raise UserError("the probe is already running", do="use a new GradientProbe")
        self._optimizer_hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self._open_if_due()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._optimizer_hooks:
            hook.remove()
        self._optimizer_hooks = []
        window, self._window = self._window, None
        if window is not None:
            window.close()
            # Of a pass back that was interrupted, the first layers have no gradient yet.
            if error is None and window.saw_backward() and not window.unfinished:
                self._record(window)

    def failed(self, error: BaseException) -> None:
        """Abandon the step that is being probed: an observer never stops a training."""
        self.problem = f"{type(error).__name__}: {error}"
        window, self._window = self._window, None
        if window is not None:
            window.close()

    def _record(self, window: Window) -> None:
        try:
            self.history.append(window.read(self.now, self.units))
        except Exception as error:
            self.failed(error)

    def _open_if_due(self) -> None:
        due = self.step % self._every == 0 or self.step in EARLY_STEPS
        if self._window is None and due:
            self.sequences.begin()
            self._window = Window(self)

    def owns(self, optimizer: Optimizer) -> bool:
        """Return whether an optimiser holds any of the model's parameters."""
        if optimizer not in self._steps:
            groups = optimizer.param_groups
            if not any(id(p) in self.parameters for g in groups for p in g["params"]):
                return False
            self._steps[optimizer] = self.step
            if not self.history and self.step == 0:
                self._made = max(self._made, _steps_made(optimizer))
        return True

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            window = self._window
            if window is None or not self.owns(optimizer):
                return
            if window.stepped(optimizer):
                # No other optimiser will step: a parameter is in none, or not in this turn.
                self._finish(window)
                window = self._window
            if window is not None:
                window.before_step(optimizer, closure=closure_of(args, kwargs) is not None)
        except Exception as error:
            self.failed(error)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            if not self.owns(optimizer):
                return
            self._steps[optimizer] += 1
            window = self._window
            if window is not None:
                window.after_step(optimizer)
                if not window.complete(list(self._steps), self._expected):
                    return
                self._finish(window)
            self.step = max(self._steps.values())
            self._open_if_due()
        except Exception as error:
            self.failed(error)

    def _finish(self, window: Window) -> None:
        window.close()
        self._window = None
        self._record(window)
        self.step = max(self._steps.values())
        self._open_if_due()


def _steps_made(optimizer: Optimizer) -> int:
    """Return how many steps an optimiser has made before, by its own count, where it has one."""
    counts = [state.get("step") for state in optimizer.state.values() if isinstance(state, dict)]
    return max((int(n) for n in counts if n is not None), default=0)


def closure_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the closure that an optimiser's step was given, or None."""
    # The first argument of a step is the optimiser itself.
    return args[1] if len(args) > 1 else kwargs.get("closure")
