"""The command line with tasks of one net, each kept at once: something to stop in mid-run.

python tests/execution/driver.py flow map ...
"""

from __future__ import annotations

import sys

from unmask.cli.main import main
from unmask.sweep import driver, engine

SETTINGS = (
    (driver, "_LEAST", 0.0),
    (driver, "_MOST", 1.0),
    (engine, "_SAVE_EVERY", 0.0),
    (engine, "_SAVE_SHARE", 1e9),
)

if __name__ == "__main__":
    for module, name, value in SETTINGS:
        setattr(module, name, value)
    sys.exit(main())
