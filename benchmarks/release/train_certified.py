"""Train candidates for mnist-certified, side by side in time, and keep the best by a held-out part.

Each candidate is a network and the settings of its certified training; the last 2,000 training
images are held out and choose. Every one writes its weights and figures as soon as it is done, so
that a run that is cut short loses the last alone. Test images are never touched.

    python benchmarks/release/train_certified.py --device cuda --minutes 8 --out OUT
    python benchmarks/release/train_certified.py --steps 300      # what a step costs, and falls
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from unmask.fool.certify.loss import proved_by_intervals
from unmask.fool.certify.training import (
    CertifiedProgress,
    CertifiedTraining,
    halved,
    train_certified,
)
from unmask.models.cnn import build

ARCHIVE = Path(__file__).parents[2] / "src" / "unmask" / "data" / "mnist.npz"
HELD_OUT = 2000
MEDIUM = {"steps": [[32, 3, 1], [32, 4, 2], [64, 3, 1], [64, 4, 2]], "hidden": 512}
SMALL = {"steps": [[32, 4, 2], [64, 4, 2]], "hidden": 512}
DEEP = {
    "steps": [[64, 3, 1], [64, 3, 1], [64, 4, 2], [64, 3, 1], [64, 4, 2]],
    "hidden": 512,
}
# name: settings, the training's differences from its defaults, the share of the minutes.
CANDIDATES = {
    "medium-0.36": (MEDIUM, {"margin": 1.2}, 1.0),
    "deep-0.36": (DEEP, {"margin": 1.2, "learning_rate": 5e-4}, 1.5),
    "medium-0.4": (MEDIUM, {"margin": 4 / 3, "small": False}, 1.0),
    "small-0.36": (SMALL, {"margin": 1.2}, 0.5),
    "medium-0.33-clean": (MEDIUM, {"margin": 1.1, "clean": 0.1, "small": False}, 0.8),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--steps", type=int, help="train the first candidate for so many steps")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/certified"))
    asked = parser.parse_args()
    began = time.perf_counter()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    asked.out.mkdir(parents=True, exist_ok=True)
    with np.load(ARCHIVE, allow_pickle=False) as arrays:
        pixels = torch.from_numpy(arrays["x_train"][:, None]).to(asked.device)
        labels = torch.from_numpy(arrays["y_train"].astype(np.int64)).to(asked.device)
    learnt, guard = slice(0, -HELD_OUT), slice(-HELD_OUT, None)
    left = sum(CANDIDATES[name][2] for name in asked.only)
    best: tuple[float, str] = (-1.0, "")
    for name in asked.only:
        settings, changes, share = CANDIDATES[name]
        rest = 60 * asked.minutes - (time.perf_counter() - began)
        if rest < 30 and asked.steps is None:
            print(f"no time left for {name}", flush=True)
            break
        seconds = rest * share / left
        left -= share
        module = build("stepped_cnn", settings, (1, 28, 28), 10).to(asked.device)
        plan = CertifiedTraining(seed=asked.seed, **changes)
        x, y = pixels[learnt], labels[learnt]
        minutes: float | None = seconds / 60
        if asked.steps is not None:
            x, y = x[: asked.steps * plan.batch_size // 6], y[: asked.steps * plan.batch_size // 6]
            plan = CertifiedTraining(**{**plan.as_dict(), "epochs": 6})
            minutes = None

        def told(p: CertifiedProgress, name: str = name) -> None:
            chosen = p.epoch <= 3 or p.epoch % max(1, p.epochs // 12) == 0
            if chosen and p.step == p.steps:
                print(
                    f"{name} {p.epoch}/{p.epochs}: eps {p.eps:.3f} loss {p.loss:.4f} "
                    f"clean {p.clean:.4f} proved {p.proved:.4f} {p.seconds:.0f} s",
                    flush=True,
                )

        start = time.perf_counter()
        trained_pair = None
        for graph in (True, False):
            if graph and (asked.no_graph or asked.device == "cpu"):
                continue
            try:
                trained_pair = train_certified(
                    module, x, y, plan, minutes=minutes, graph=graph, progress=told
                )
                break
            except Exception as error:
                print(f"{name}, graph {graph}: {type(error).__name__}: {error}", flush=True)
                asked.no_graph = True
                module = build("stepped_cnn", settings, (1, 28, 28), 10).to(asked.device)
        if trained_pair is None:
            continue
        last, average, end = trained_pair
        kept: tuple[float, dict[str, object], dict[str, object]] | None = None
        for kind, trained in (("last", last), ("average", average)):
            stored = halved(trained)
            clean, proved = proved_by_intervals(stored, pixels[guard], labels[guard], plan.eps)
            figures: dict[str, object] = {
                "name": name,
                "weights": kind,
                "architecture": "stepped_cnn",
                "settings": settings,
                "plan": plan.as_dict(),
                "epochs": end.epoch,
                "seconds": time.perf_counter() - start,
                "device": torch.cuda.get_device_name() if "cuda" in asked.device else "cpu",
                "torch": torch.__version__,
                "held_out": HELD_OUT,
                "held_out_clean": clean,
                "held_out_proved": proved,
                "parameters": sum(v.numel() for v in stored.parameters()),
            }
            print(json.dumps(figures), flush=True)
            if kept is None or proved > kept[0]:
                kept = proved, figures, dict(stored.state_dict())
        assert kept is not None
        proved, figures, state = kept
        best = max(best, (proved, name))
        arrays = {
            k: v.detach().cpu().numpy().astype(np.float16 if v.ndim > 1 else np.float32)
            for k, v in state.items()
        }
        np.savez(asked.out / f"{name}.npz", figures=json.dumps(figures), **arrays)
    print(f"best by the held-out images: {best[1]}, {best[0]:.4f} proved", flush=True)


if __name__ == "__main__":
    main()
