"""What tests of files share: figures that are not drawn, where others look at the drawings."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out, which takes nearly all of the time that a page takes."""

    def save(self: Figure, buffer: Any, **options: object) -> None:
        buffer.write("<svg></svg>" if options["format"] == "svg" else b"")

    monkeypatch.setattr(Figure, "savefig", save)
