"""What a start imports: time follows from it, on any machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "src/unmask/data/samples/obama.jpg"
HEAVY = {"torch", "numpy", "scipy", "matplotlib", "onnxruntime", "PIL", "pandas", "jinja2"}


def imported(code: str) -> set[str]:
    """Return the top-level modules that a fresh process has after running the code."""
    told = (
        f"{code}\nimport sys\nprint(*{{m.partition('.')[0] for m in sys.modules}}, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(ran.stderr.splitlines()[-1].split())


def test_import_unmask_imports_no_library() -> None:
    assert not imported("import unmask") & (HEAVY | {"cyclopts", "rich"})


def test_the_detector_starts_without_pytorch() -> None:
    code = f"from unmask.cli.main import main\nmain(['mask', 'detect', {str(SAMPLE)!r}])"
    found = imported(code)
    assert "onnxruntime" in found
    assert not found & {"torch", "scipy", "matplotlib", "pandas", "rich"}
