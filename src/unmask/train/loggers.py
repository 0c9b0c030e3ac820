"""A run's figures and verdicts in TensorBoard, MLflow or Weights & Biases, by their interfaces."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unmask.errors import UserError
from unmask.verdict import SEVERITIES, Verdict, worst_first

_COLUMNS = ("severity", "kind", "subject", "message", "fix")


class Logger(Protocol):
    """Where a run's figures go; anything with these two methods is one."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Take figures by name, of an epoch or a step."""

    def verdicts(self, found: Sequence[Verdict]) -> None:
        """Take what is wrong: of a check, an audit, a watched training."""


class TensorBoardLogger:
    """An event file.

    Args:
        folder: where it goes.
        done: the last epoch that counts; later ones of an earlier run in the folder are hidden.

    Raises:
        UserError: TensorBoard isn't installed.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard", error) from error
        self._writer = SummaryWriter(folder, purge_step=done + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars, so that they can be read at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def verdicts(self, found: Sequence[Verdict]) -> None:
        """Write how many there are of each severity, and each as text."""
        for name, count in _counts(found).items():
            self._writer.add_scalar(name, count, 0)
        for i, verdict in enumerate(worst_first(found)):
            self._writer.add_text("verdicts", str(verdict), i)
        self._writer.flush()


class MLflowLogger:
    """The active run of MLflow; one is begun where there is none.

    Raises:
        UserError: MLflow isn't installed (mlflow-skinny is enough).
    """

    def __init__(self) -> None:
        self._mlflow = _library("mlflow", "MLflow")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics."""
        self._mlflow.log_metrics(dict(values), step=step)

    def verdicts(self, found: Sequence[Verdict]) -> None:
        """Log how many there are of each severity, and all as the artifact verdicts.json."""
        self._mlflow.log_metrics(_counts(found))
        told = [verdict.as_dict() for verdict in worst_first(found)]
        self._mlflow.log_dict({"verdicts": told}, "verdicts.json")


class WandbLogger:
    """A run of Weights & Biases.

    Args:
        run: what wandb.init returned; by default the one that it began last.

    Raises:
        UserError: wandb isn't installed, or there is no run.
    """

    def __init__(self, run: Any = None) -> None:
        self._wandb = _library("wandb", "Weights & Biases")
        self._run = self._wandb.run if run is None else run
        if self._run is None:
            raise UserError(
                "there is no run of Weights & Biases", do="call wandb.init(project=...) first"
            )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log figures."""
        self._run.log(dict(values), step=step)

    def verdicts(self, found: Sequence[Verdict]) -> None:
        """Log how many there are of each severity as the run's summary, and all as a table."""
        self._run.summary.update(_counts(found))
        rows = [[getattr(v, name) or "" for name in _COLUMNS] for v in worst_first(found)]
        self._run.log({"verdicts": self._wandb.Table(columns=list(_COLUMNS), data=rows)})


def _counts(found: Sequence[Verdict]) -> dict[str, float]:
    counts = Counter(verdict.severity for verdict in found)
    return {f"verdicts/{severity}": float(counts[severity]) for severity in SEVERITIES}


def _library(name: str, title: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise _missing(title, error) from error


def _missing(title: str, error: ImportError) -> UserError:
    return UserError(f"{title} is not installed", got=str(error), do="pip install 'unmask[log]'")
