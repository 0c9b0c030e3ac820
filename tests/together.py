"""What torchrun starts for test_distributed: fits in several processes, their ends written out.

torchrun --nproc-per-node 2 tests/together.py FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from unmask.data.augment import Augmentation
from unmask.data.images import Images
from unmask.models.checkpoint import write_tensors
from unmask.models.classifier import Classifier
from unmask.train.config import FitConfig
from unmask.train.distributed import joined, processes
from unmask.train.fit import FitInterrupted, FitProgress, fit
from unmask.train.history import History

# One step of plain descent at rate 1: the weights move by the gradient.
GRADIENT = FitConfig(
    epochs=1,
    batch_size=101,
    optimizer="sgd",
    rate=1.0,
    momentum=0.0,
    schedule="constant",
    label_smoothing=0.1,
    augmentation=Augmentation("random", 1),
    precision="fp32",
)
# The last batches have an odd number of images, and no dropout is drawn.
RUNS = {
    "muon": replace(
        GRADIENT,
        epochs=3,
        batch_size=26,
        optimizer="muon",
        rate=0.02,
        head_rate=0.02,
        bias_rate=0.02,
        averaging="lookahead",
    ),
    "adamw": replace(
        GRADIENT,
        epochs=3,
        batch_size=26,
        optimizer="adamw",
        rate=1e-3,
        averaging="ema",
        averaging_horizon=5,
        test_time="flip",
    ),
}


def pictures() -> tuple[Images, Images]:
    """101 to train on and 21 to validate with, of three noisy patterns."""
    random = np.random.default_rng(7)
    patterns = random.integers(0, 256, (3, 3, 12, 12))
    labels = random.integers(0, 3, 122)
    noise = random.integers(-90, 90, (122, 3, 12, 12))
    pixels = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    return Images(pixels, labels, ("a", "b", "c"), "patterns").split(101)


def run(config: FitConfig, folder: Path, *, resume: bool = False, until: int = 99) -> History:
    """Fit a network with batch norm, stopped when epoch `until` begins; keep its weights."""
    train, validation = pictures()
    model = Classifier.create(
        "block_cnn",
        {"widths": [8, 16]},
        class_names=train.class_names,
        input_shape=(3, 12, 12),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        seed=0,
    )

    def stop(progress: FitProgress) -> None:
        if progress.epoch >= until:
            raise KeyboardInterrupt

    try:
        history = fit(
            model,
            train,
            config,
            validation=validation,
            directory=folder,
            resume=resume,
            device="cpu",
            progress=stop,
        )
    except FitInterrupted as stopped:
        history = stopped.history
    if processes().first:
        write_tensors(folder / "weights.safetensors", model.state_dict())
    return history


def main() -> None:
    folder = Path(sys.argv[1])
    with joined("cpu"):
        assert processes().count == 2
        run(GRADIENT, folder / "gradient")
        for name, config in RUNS.items():
            run(config, folder / f"{name} whole")
            run(config, folder / f"{name} of two", until=3)
            run(config, folder / f"{name} of one", resume=True)


if __name__ == "__main__":
    main()
