"""Processor seconds an image of each corruption at 224 px, ours or imagecorruptions'.

One thread of one core.

    python benchmarks/shift/speed.py unmask OUT.json
    python benchmarks/shift/speed.py imagecorruptions OUT.json

Processor time, so that what else runs on the machine plays little part. Give both files to compare:

    python benchmarks/shift/speed.py compare OURS.json THEIRS.json
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "shift"))
from natural import natural

SIDE, SEVERITIES, REPEATS = 224, (1, 3, 5), 3


def timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def ours() -> dict[str, float]:
    import torch

    from unmask.shift.corruptions import corrupt, corruptions

    torch.set_num_threads(1)
    pixels = torch.tensor(natural(16, SIDE)).permute(0, 3, 1, 2).contiguous().float() / 255
    found = {}
    for name in corruptions():
        corrupt(pixels, name, 3)
        found[name] = statistics.mean(
            min(timed(lambda n=name, s=s: corrupt(pixels, n, s)) for _ in range(REPEATS))
            for s in SEVERITIES
        ) / len(pixels)
    return found


def theirs() -> dict[str, float]:
    import cv2
    import imagecorruptions

    cv2.setNumThreads(1)
    blur = imagecorruptions.corruptions.gaussian

    def gaussian(
        image: np.ndarray, *args: object, multichannel: bool = False, **more: object
    ) -> np.ndarray:
        # scikit-image has renamed the argument since.
        return blur(image, *args, channel_axis=-1 if multichannel else None, **more)

    imagecorruptions.corruptions.gaussian = gaussian
    images = natural(16, SIDE)
    found = {}
    for name in imagecorruptions.get_corruption_names("all"):
        # Its glass is a loop in Python of seconds an image.
        some = images[:1] if name == "glass_blur" else images[:6]

        def all_of(severity: int, name: str = name, some: np.ndarray = some) -> None:
            for image in some:
                imagecorruptions.corrupt(image, corruption_name=name, severity=severity)

        repeats = 1 if name == "glass_blur" else REPEATS
        found[name] = statistics.mean(
            min(timed(lambda s=s: all_of(s)) for _ in range(repeats)) for s in SEVERITIES
        ) / len(some)
    return found


def compare(first: str, second: str) -> None:
    a, b = (json.loads(Path(p).read_text()) for p in (first, second))
    for name in b:
        print(
            f"{name:18} {1000 * a[name]:8.2f} ms {1000 * b[name]:9.2f} ms {b[name] / a[name]:6.1f}"
        )
    for label, names in (
        ("all", list(b)),
        ("without glass_blur", [n for n in b if n != "glass_blur"]),
    ):
        one, two = sum(a[n] for n in names), sum(b[n] for n in names)
        print(f"{label}: {1000 * one:.0f} ms against {1000 * two:.0f} ms, {two / one:.1f} times")


if __name__ == "__main__":
    if sys.argv[1] == "compare":
        compare(*sys.argv[2:])
    else:
        result = {"unmask": ours, "imagecorruptions": theirs}[sys.argv[1]]()
        Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")
