"""What imagecorruptions makes of our test images: tables for the tests, and its speed.

In an environment with imagecorruptions (pip install imagecorruptions), from the project's folder:

    python benchmarks/shift/reference.py tests/shift/imagecorruptions.json
"""

from __future__ import annotations

import json
import random
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "shift"))
from natural import STATISTICS, natural, statistics

SIDE, COUNT = 224, 8


def main(out: str) -> None:
    """Write the statistics of every corruption and severity, and seconds an image."""
    import imagecorruptions

    blur = imagecorruptions.corruptions.gaussian

    def gaussian(image: np.ndarray, *args: object, multichannel: bool = False, **more: object):
        # scikit-image has renamed the argument since.
        return blur(image, *args, channel_axis=-1 if multichannel else None, **more)

    imagecorruptions.corruptions.gaussian = gaussian
    warnings.simplefilter("ignore")
    images = natural(COUNT, SIDE)
    clean = images / 255.0
    table: dict[str, list[list[float]]] = {}
    seconds: dict[str, float] = {}
    for name in imagecorruptions.get_corruption_names("all"):
        imagecorruptions.corrupt(images[0], corruption_name=name, severity=3)
        rows = []
        spent = 0.0
        for severity in range(1, 6):
            np.random.seed(severity)  # noqa: NPY002
            random.seed(severity)
            start = time.perf_counter()
            changed = [
                imagecorruptions.corrupt(x, corruption_name=name, severity=severity) for x in images
            ]
            spent += time.perf_counter() - start
            rows.append([round(v, 5) for v in statistics(clean, np.stack(changed) / 255.0)])
        table[name] = rows
        seconds[name] = spent / (5 * COUNT)
        print(f"{name:18} {1000 * seconds[name]:8.1f} ms an image", flush=True)
    mean = sum(seconds.values()) / len(seconds)
    print(f"all: {1 / mean:.1f} images a second")
    Path(out).write_text(
        json.dumps(
            {
                "library": f"imagecorruptions {metadata.version('imagecorruptions')}",
                "images": f"natural({COUNT}, {SIDE})",
                "statistics": STATISTICS,
                "table": table,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
