"""Does it hold in the wild? A classifier under blur, noise, weather, another runtime.

unmask.shift(model, data) measures and judges it; see measure_shift for the arguments.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.shift.result import Shift


class _Room(types.ModuleType):
    """A package that can be called: unmask.shift(...) beside unmask.shift.corruptions."""

    def __call__(self, model: Any, data: Any, **settings: Any) -> Shift:
        """Measure a classifier under shift, and judge it.

        Args:
            model: an nn.Module, a function of pixels in [0, 1], a shipped name, a file or an import
                path.
            data: a named set, a folder or zip, Images, (pixels, labels) or a DataLoader.
            settings: those of unmask.shift.result.ShiftPlan, such as images=500 or
                corruptions=("fog",), and directory, resume, on and progress of measure_shift.

        Returns:
            A Shift: figures(), verdicts, and everything measured.

        Raises:
            UserError: when the model, the data or a setting can't be used.
        """
        from unmask.errors import unknown
        from unmask.shift.measurement import measure_shift
        from unmask.shift.result import ShiftPlan

        others = ("files", "directory", "resume", "on", "progress")
        kept = {k: settings.pop(k) for k in others if k in settings}
        known = ShiftPlan.__dataclass_fields__
        for name in settings:
            if name not in known:
                raise unknown("setting", name, [*known, *others])
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else (v,) if isinstance(v, str) else v
            for k, v in settings.items()
        }
        plan = ShiftPlan(**values)
        return measure_shift(model, data, plan, **kept)


sys.modules[__name__].__class__ = _Room
