"""All questions about one model at once, within a time: unmask.check(model, data, minutes=5)."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.check.result import Check


class _Room(types.ModuleType):
    """A package that can be called: unmask.check(...) beside unmask.check.result."""

    def __call__(self, model: Any, data: Any, *, minutes: float = 5, **settings: Any) -> Check:
        """Answer all questions about a model, within a time.

        Args:
            model: an nn.Module, a function of pixels in [0, 1], a shipped name, a file or an import
                path.
            data: a named set, a folder or zip, Images, (pixels, labels) or a DataLoader.
            minutes: the time allowed.
            settings: questions, eps, seed and progress of unmask.check.run.check_model.

        Returns:
            A Check: print it, or read verdicts, figures() and parts.

        Raises:
            UserError: when the model or the data can't be used at all.
        """
        from unmask.check.run import check_model

        return check_model(model, data, minutes=minutes, **settings)


sys.modules[__name__].__class__ = _Room
