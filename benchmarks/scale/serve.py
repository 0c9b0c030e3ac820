"""Load on `unmask serve`: many clients at once, each sending a picture as soon as it has an answer.

A server is started on loopback in a process of its own, without a rate limit, and asked to find
faces (with --detector) and to classify digits. Printed are the requests a second, the times of the
answers, and the server's memory at the start and at the end.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from unmask.data.mnist import load_mnist
from unmask.runtime import environment_stamp

_ADDRESS = re.compile(r"http://([\d.]+):(\d+)")


class Client(threading.Thread):
    """Sends one picture again and again over one connection until the time is up."""

    def __init__(self, port: int, path: str, content: bytes, ends: float) -> None:
        super().__init__()
        self.port, self.path, self.content, self.ends = port, path, content, ends
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while time.monotonic() < self.ends:
            begun = time.perf_counter()
            try:
                connection.request("POST", self.path, self.content)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status}: {body[:200].decode()}")
            except OSError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
            self.seconds.append(time.perf_counter() - begun)


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def photograph() -> bytes:
    """A JPEG of 640 x 480 that is neither empty nor noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return encoded(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC), "JPEG")


def load(
    port: int, process: psutil.Process, path: str, content: bytes, clients: int, seconds: float
) -> dict[str, object]:
    warm = [Client(port, path, content, time.monotonic() + 2) for _ in range(clients)]
    for client in warm:
        client.start()
    for client in warm:
        client.join()
    before, begun = process.memory_info().rss, time.monotonic()
    working = [Client(port, path, content, begun + seconds) for _ in range(clients)]
    peak = before
    for client in working:
        client.start()
    while any(c.is_alive() for c in working):
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.2)
    took = time.monotonic() - begun
    times = np.array([s for c in working for s in c.seconds])
    failures = [f for c in working for f in c.failures]
    p50, p90, p99 = np.percentile(times, (50, 90, 99))
    return {
        "call": path,
        "clients": clients,
        "seconds": took,
        "requests": len(times),
        "failures": len(failures),
        "first_failure": failures[0] if failures else None,
        "per_second": len(times) / took,
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "slowest": times.max(),
        "memory_before": before,
        "memory_peak": peak,
        "memory_after": process.memory_info().rss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--detector", type=Path, help="an ONNX file; without, digits alone")
    options = parser.parse_args()
    command = [sys.executable, "-m", "unmask", "serve", "--port", "0", "--rate", "0"]
    command += ["--seconds", "120"]
    digit = encoded(Image.fromarray(load_mnist()[1].pixels[0, 0]), "PNG")
    calls = [("/api/classify?model=mnist", digit)]
    if options.detector is not None:
        command += ["--detector", str(options.detector)]
        calls.append(("/api/detect", photograph()))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = _ADDRESS.search(server.stdout.readline())
        assert found is not None, "the server did not start"
        process = psutil.Process(server.pid)
        rows = [
            load(int(found[2]), process, path, content, options.clients, options.seconds)
            for path, content in calls
        ]
        server.terminate()
    print(
        f"{'call':<28} {'requests':>9} {'failed':>7} {'a second':>9} {'p50':>8} {'p99':>8} memory"
    )
    for row in rows:
        megabytes = [
            f"{row[k] / 2**20:.0f}" for k in ("memory_before", "memory_peak", "memory_after")
        ]
        print(
            f"{row['call']:<28} {row['requests']:>9} {row['failures']:>7} "
            f"{row['per_second']:>9.1f} {1000 * row['p50']:>5.0f} ms "
            f"{1000 * row['p99']:>5.0f} ms {' → '.join(megabytes)} MiB"
        )
    print(json.dumps({"calls": rows, "stamp": environment_stamp()}))


if __name__ == "__main__":
    main()
