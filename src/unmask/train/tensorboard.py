"""A run's figures as TensorBoard scalars."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from unmask.errors import UserError
from unmask.train.history import EpochFigures


class Scalars:
    """An event file in folder/tensorboard.

    Args:
        folder: of the run.
        epochs_done: how many the run had when it was resumed; later events of it are purged.

    Raises:
        UserError: TensorBoard isn't installed.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard is not installed", got=str(error), do="pip install 'unmask[log]'"
            ) from error
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=epochs_done + 1)

    def add(self, figures: EpochFigures) -> None:
        """Write one epoch's figures, so that they can be read at once."""
        for name, value in asdict(figures).items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, figures.epoch)
        self._writer.flush()
