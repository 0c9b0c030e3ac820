"""What is seen of a training by epochs, on a terminal and in a log."""

import io
from dataclasses import dataclass

from unmask.cli.console import Console
from unmask.cli.progress import epoch_progress


@dataclass(frozen=True)
class Step:
    epoch: int
    epochs: int
    step: int
    steps: int


def shown(terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with epoch_progress(console, lambda p: f"at {p.step}") as show:
        for epoch in (1, 2):
            for step in (1, 2, 3):
                show(Step(epoch, 2, step, 3))
    return file.getvalue()


def test_a_log_gets_a_line_an_epoch() -> None:
    assert shown(terminal=False) == "epoch 1 of 2: at 3\nepoch 2 of 2: at 3\n"


def test_a_terminal_gets_a_bar_that_goes_when_it_is_over() -> None:
    text = shown(terminal=True)
    assert "epoch 2 of 2" in text
    assert text.endswith("\x1b[2K")
