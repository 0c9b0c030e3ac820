"""Train the detectors of five folds and of all images side by side, on one accelerator, in a time.

Worker processes make canvases, each of the images of one fold alone; every detector takes those of
the folds that it may see, so a canvas is made once for five of the six. The learning rate goes by
the clock, so that a training ends well whenever it has to. OUT/fold-K/ gets detector.safetensors
(the averaged weights; fold 5 is all images) and log.jsonl.

What it needs travels as one file that --pack makes: the images as WebP at quality 82 in their own
size, corrected annotations, folds (near-duplicates together), and images without a face: some of
scikit-image's samples (from its wheel) and a few thousand of CIFAR-10's training images.

    python -m benchmarks.release.train_detector pack FACES PACK.zip --cifar FOLDER --samples WHEEL
    python -m benchmarks.release.train_detector train PACK.zip --out OUT --minutes 5 --device cuda
"""

from __future__ import annotations

import argparse
import io
import json
import mmap
import multiprocessing
import os
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unmask.data.detection.dataset import AnnotatedImages
from unmask.mask.training.canvases import WILD, Canvases
from unmask.mask.training.colour import recoloured
from unmask.mask.training.loss import losses, targets_of
from unmask.mask.training.network import DetectorShape, FaceNetwork, detector_card, save_detector
from unmask.mask.training.trainer import rarity_weights
from unmask.runtime import seeded
from unmask.train.config import FitConfig
from unmask.train.optimizers import Muon, optimizers
from unmask.train.schedules import one_cycle

FOLDS = 5
ALL = FOLDS
QUALITY = 82
# The rest of scikit-image's samples is kept for measuring: cat, coffee, galaxies, coins, ...
SAMPLES = (
    "brick.png", "cell.png", "clock_motion.png", "color.png", "grass.png", "ihc.png", "moon.png",
    "retina.jpg", "rocket.jpg", "text.png", "motorcycle_right.png", "chessboard_RGB.png",
)  # fmt: skip
CIFAR_SHEETS = 4
# Boxes on a canvas; of more, the largest are kept.
MOST_FACES = 96
SLOTS = 4
_PADDING = -2
_STREAM = 31
_SAVE_EVERY = 60.0
FIT = FitConfig(
    epochs=1,
    batch_size=32,
    optimizer="muon_adamw",
    rate=0.04,
    bias_rate=2e-3,
    head_rate=2e-3,
    weight_decay=0.05,
    warmup=0.08,
    averaging="ema",
    averaging_horizon=300,
)


def pack(faces: Path, out: Path, cifar: Path | None, samples: Path | None) -> None:
    """Write all that the training needs into one zip archive."""
    from unmask.data.detection.dataset import load_faces
    from unmask.mask.evaluate.folds import folds

    annotated = load_faces(faces, corrected=True)
    fold_of = np.zeros(len(annotated), np.int64)
    for k, (_, held) in enumerate(folds(annotated, FOLDS)):
        fold_of[held] = k
    entries = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for i, path in enumerate(annotated.paths):
            archive.writestr(f"images/{path.stem}.webp", _webp(annotated.pixels(i)))
            entries.append(
                {
                    "name": path.stem,
                    "size": annotated.sizes[i].tolist(),
                    "boxes": annotated.boxes[i].tolist(),
                    "labels": annotated.labels[i].tolist(),
                    "ignored": annotated.ignored[i].tolist(),
                    "fold": int(fold_of[i]),
                }
            )
        if samples is not None:
            with zipfile.ZipFile(samples) as wheel:
                for name in SAMPLES:
                    image = Image.open(io.BytesIO(wheel.read(f"skimage/data/{name}")))
                    pixels = np.asarray(image.convert("RGB"))
                    archive.writestr(f"bank/{Path(name).stem}.webp", _webp(pixels))
        if cifar is not None:
            for k in range(CIFAR_SHEETS):
                sheet = np.asarray(Image.open(cifar / f"train_{k:02}.webp").convert("RGB"))
                archive.writestr(f"sheets/{k}.webp", _webp(sheet))
        told = {
            "class_names": annotated.class_names,
            "images": entries,
            "data": annotated.sha256,
        }
        archive.writestr("facts.json", json.dumps(told))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(entries)} images")


def _webp(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()


def unpack(archive: Path, folder: Path) -> tuple[AnnotatedImages, Any, list[Any], str]:
    """Return the annotated images, the fold of each, face-free images and the data's key."""
    with zipfile.ZipFile(archive) as file:
        told = json.loads(file.read("facts.json"))
        paths, bank, cells = [], [], []
        for name in sorted(file.namelist()):
            if name.endswith(".webp"):
                pixels = np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB"))
            if name.startswith("bank/"):
                bank.append(pixels)
            elif name.startswith("sheets/"):
                rows = pixels.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4)
                cells += list(rows.reshape(1000, 32, 32, 3))
        for entry in told["images"]:
            path = folder / f"{entry['name']}.webp"
            path.write_bytes(file.read(f"images/{path.name}"))
            paths.append(path)
    # As many draws of the large images as of the small ones.
    bank = bank * max(1, len(cells) // max(len(bank), 1)) + cells
    entries = told["images"]
    annotated = AnnotatedImages(
        tuple(paths),
        np.array([e["size"] for e in entries], np.int64),
        tuple(np.array(e["boxes"], np.float32).reshape(-1, 4) for e in entries),
        tuple(np.array(e["labels"], np.int64) for e in entries),
        tuple(told["class_names"]),
        "faces",
        ignored=tuple(np.array(e["ignored"], np.float32).reshape(-1, 4) for e in entries),
    )
    return annotated, np.array([e["fold"] for e in entries]), bank, told["data"]


class BatchedMuon(Muon):
    """Muon with all filters of one shape updated at once: fewer and larger kernels."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient, as Muon does."""
        for group in self.param_groups:
            if "shapes" not in group:
                group["shapes"] = {}
                for p in group["params"]:
                    group["shapes"].setdefault(tuple(p.shape), []).append(p)
            for params in group["shapes"].values():
                state = self.state[params[0]]
                gradient = torch.stack([p.grad for p in params]).flatten(2)
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                x = (gradient + group["momentum"] * momentum).flatten(2)
                values = torch.stack([p.detach() for p in params]).flatten(2)
                length = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True)
                values = values * (len(params[0]) ** 0.5 / length)
                x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
                tall = x.shape[1] > x.shape[2]
                x = x.transpose(1, 2) if tall else x
                for _ in range(3):
                    gram = x @ x.transpose(1, 2)
                    x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
                x = x.transpose(1, 2) if tall else x
                values = values - group["lr"] * x
                for p, value in zip(params, values, strict=True):
                    p.copy_(value.view(p.shape))


@dataclass
class Ring:
    """Rounds of canvases that all processes see: SLOTS of them at once.

    each: canvases a fold and round. done: int64[1], over 0 when all is over.
    """

    size: int
    each: int
    pixels: Any
    boxes: Any
    labels: Any
    filled: Any
    taken: Any
    done: Any

    @classmethod
    def of(cls, size: int, each: int, models: int) -> Ring:
        """Return an empty one, for processes that fork from this one."""
        count = FOLDS * each

        def shared(shape: tuple[int, ...], dtype: Any) -> Any:
            length = int(np.prod(shape)) * np.dtype(dtype).itemsize
            return np.frombuffer(mmap.mmap(-1, max(length, 1)), dtype)[
                : int(np.prod(shape))
            ].reshape(shape)

        return cls(
            size,
            each,
            shared((SLOTS, count, size, size, 3), np.uint8),
            shared((SLOTS, count, MOST_FACES, 4), np.float32),
            shared((SLOTS, count, MOST_FACES), np.int64),
            shared((SLOTS, count), np.int64),
            shared((models,), np.int64),
            shared((1,), np.int64),
        )


def produce(ring: Ring, makers: list[Canvases], worker: int, workers: int, seed: int) -> None:
    """Fill the worker's share of every round until all is over."""
    torch.set_num_threads(1)
    count = FOLDS * ring.each
    task = worker
    chances = [m.repeats / m.repeats.sum() for m in makers]
    while not ring.done[0]:
        round_, place = divmod(task, count)
        if round_ >= int(ring.taken.min()) + SLOTS:
            time.sleep(0.001)
            continue
        slot, fold = round_ % SLOTS, place // ring.each
        random = seeded(seed, _STREAM, round_, place)
        picture = int(random.choice(len(chances[fold]), p=chances[fold]))
        canvas = makers[fold].make(picture, random)
        boxes, labels = canvas.faces
        largest = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))[:MOST_FACES]
        ring.labels[slot, place] = _PADDING
        ring.labels[slot, place, : len(largest)] = labels[largest]
        ring.boxes[slot, place] = 0
        ring.boxes[slot, place, : len(largest)] = boxes[largest]
        ring.pixels[slot, place] = canvas.pixels
        ring.filled[slot, place] = round_ + 1
        task += workers


def train(ring: Ring, model: int, told: argparse.Namespace, counts: Any, key: str) -> None:
    """Train one detector on the rounds until its time is over."""
    torch.set_num_threads(1)
    device = torch.device(told.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    out = told.out / f"fold-{model}"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(told.seed * 100 + model)
    shape = DetectorShape()
    network = FaceNetwork(3, shape).to(device).to(memory_format=torch.channels_last)
    made = optimizers(network, FIT)
    for k, optimizer in enumerate(made):
        if isinstance(optimizer, Muon):
            made[k] = BatchedMuon(optimizer.param_groups, lr=FIT.rate, momentum=FIT.momentum)
    live = [v for v in network.state_dict().values() if v.is_floating_point()]
    names = [k for k, v in network.state_dict().items() if v.is_floating_point()]
    average = [v.clone() for v in live]
    weights = rarity_weights(counts).to(device)
    card = detector_card(told.class_names, shape, {"data": key, "minutes": told.minutes})
    own = np.array([p for p in range(FOLDS * ring.each) if p // ring.each != model])
    log = (out / "log.jsonl").open("w")
    began = saved = 0.0
    sums, step = torch.zeros(3, device=device), 0
    network.train()
    while True:
        slot = step % SLOTS
        while not (ring.filled[slot, own] == step + 1).all():
            if ring.done[0]:
                return
            time.sleep(0.0005)
        began = began or time.perf_counter()
        spent = (time.perf_counter() - began) / (60 * told.minutes)
        if spent >= 1 or (told.steps and step >= told.steps):
            break
        pixels = torch.from_numpy(ring.pixels[slot, own]).to(device)
        boxes = torch.from_numpy(ring.boxes[slot, own]).to(device)
        labels = torch.from_numpy(ring.labels[slot, own]).to(device)
        ring.taken[model] = step + 1
        given = recoloured(pixels, seeded(told.seed, _STREAM + 1, model, step))
        given = given.contiguous(memory_format=torch.channels_last)
        wanted = targets_of(boxes, labels, ring.size, ring.size)
        height = one_cycle(int(spent * 1e6), 10**6, FIT.warmup, 0.0)
        for optimizer in made:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * height
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            heads = network(given)
        parts = losses(heads, wanted, weights)
        parts.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        for optimizer in made:
            optimizer.step()
        keep = min(1 - 1 / FIT.averaging_horizon, (step + 1) / (step + 11))
        with torch.no_grad():
            torch._foreach_lerp_(average, live, 1 - keep)
        sums += torch.stack([parts.face, parts.sides, parts.classes]).detach()
        step += 1
        over = time.perf_counter() - began
        if step % 50 == 0:
            face, sides, classes = (sums / 50).tolist()
            line = {"step": step, "seconds": over, "face": face, "sides": sides, "classes": classes}
            log.write(json.dumps(line) + "\n")
            log.flush()
            sums.zero_()
            if not np.isfinite(face):
                break
            if over - saved > _SAVE_EVERY:
                saved = over
                _save(out, network, names, average, card)
    ring.taken[model] = 1 << 60
    card = replace(card, facts={**card.facts, "steps": step, "batch": len(own)})
    _save(out, network, names, average, card)
    print(f"fold {model}: {step} steps in {time.perf_counter() - began:.0f} s", flush=True)


def _save(out: Path, network: Any, names: list[str], average: list[Any], card: Any) -> None:
    copy = FaceNetwork(3, card.shape)
    state = {k: v.cpu() for k, v in network.state_dict().items()}
    state.update({k: v.cpu().contiguous() for k, v in zip(names, average, strict=True)})
    copy.load_state_dict(state)
    save_detector(out / "detector.safetensors", copy, card)


def run(told: argparse.Namespace) -> int:
    """Start all processes, wait for the trainings, and tell how fast it went."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        annotated, fold, bank, key = unpack(told.pack, Path(folder))
        told.class_names = annotated.class_names
        plan = replace(WILD, size=told.size)
        makers = [Canvases(annotated[np.flatnonzero(fold == k)], plan, bank) for k in range(FOLDS)]
    chosen = told.only if told.only is not None else list(range(FOLDS + 1))
    ring = Ring.of(told.size, told.each, FOLDS + 1)
    for model in set(range(FOLDS + 1)) - set(chosen):
        ring.taken[model] = 1 << 60
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=produce, args=(ring, makers, w, told.workers, told.seed), daemon=True)
        for w in range(told.workers)
    ]
    trainings = [
        fork.Process(
            target=train,
            args=(ring, m, told, annotated[np.flatnonzero(fold != m)].counts, key),
        )
        for m in chosen
    ]
    for process in (*workers, *trainings):
        process.start()
    try:
        while any(p.is_alive() for p in trainings):
            time.sleep(0.2)
            for m, process in zip(chosen, trainings, strict=True):
                # One that failed doesn't stop the others.
                if process.exitcode not in (None, 0):
                    ring.taken[m] = 1 << 60
    finally:
        ring.done[0] = 1
        for process in workers:
            process.join(timeout=5)
    return int(any(p.exitcode for p in trainings))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packer = verbs.add_parser("pack")
    packer.add_argument("faces", type=Path)
    packer.add_argument("out", type=Path)
    packer.add_argument("--cifar", type=Path, help="a folder with CIFAR-10's sheets")
    packer.add_argument("--samples", type=Path, help="scikit-image's wheel")
    trainer = verbs.add_parser("train")
    trainer.add_argument("pack", type=Path)
    trainer.add_argument("--out", type=Path, required=True)
    trainer.add_argument("--minutes", type=float, default=5.0)
    trainer.add_argument("--steps", type=int, default=0, help="stop after so many steps")
    trainer.add_argument("--device", default="cuda")
    trainer.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 6))
    trainer.add_argument("--each", type=int, default=8, help="canvases a fold and step")
    trainer.add_argument("--size", type=int, default=WILD.size)
    trainer.add_argument("--seed", type=int, default=0)
    trainer.add_argument("--only", type=int, nargs="*", help="folds 0 to 4; 5 is all images")
    told = parser.parse_args()
    if told.verb == "pack":
        pack(told.faces, told.out, told.cifar, told.samples)
        return 0
    return run(told)


if __name__ == "__main__":
    sys.exit(main())
