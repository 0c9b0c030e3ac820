"""False alarms on healthy trainings: networks and settings that others made, on MNIST at 32 px.

The image classifiers are those of the transformers library, drawn at random as it draws them, at
small widths; the other trainings are the first examples of the libraries' own documentation. An
error on one of them counts as a false alarm unless --train shows that it doesn't learn: it trains
each for 300 steps and prints the accuracy on unseen images. A table first, then one line of JSON.

    python benchmarks/flow/healthy.py [--train] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.mnist import load_mnist
from unmask.flow.check import check_flow
from unmask.runtime import environment_stamp, seeded

BATCH, STEPS, TRAIN_STEPS, CLASSES = 32, 10, 300, 10
LEARNT = 0.5


@dataclass(frozen=True)
class Training:
    """A healthy training: what makes the network, its optimiser, and how it takes images."""

    name: str
    make: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    settings: str = "adam 1e-3"
    fed: Callable[[Tensor], Any] = field(default=lambda x: x)


def adam(rate: float = 1e-3) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def adamw(rate: float = 5e-4, decay: float = 0.05) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def momentum(rate: float = 0.02) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(
        parameters, lr=rate, momentum=0.9, weight_decay=1e-4, nesterov=True
    )


_WIDE = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3}
_VIT = {**_WIDE, "intermediate_size": 192, "image_size": 32, "patch_size": 4}
_STAGES = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128]}
# Configurations of transformers' image classifiers, by class.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", _VIT),
    "DeiT": ("DeiT", _VIT),
    "BEiT": (
        "Beit",
        {**_VIT, "use_relative_position_bias": True, "layer_scale_init_value": 0.1},
    ),
    "data2vec": ("Data2VecVision", _VIT),
    "DINOv2": ("Dinov2", {**_WIDE, "image_size": 32, "patch_size": 4}),
    "ViT-MSN": ("ViTMSN", _VIT),
    "SigLIP": ("Siglip", {"vision_config": _VIT}),
    "Swin": (
        "Swin",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [2, 2, 2],
            "num_heads": [2, 4, 8],
            "window_size": 4,
        },
    ),
    "Swin v2": (
        "Swinv2",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [2, 2, 2],
            "num_heads": [2, 4, 8],
            "window_size": 4,
        },
    ),
    "ConvNeXt": ("ConvNext", {**_STAGES, "patch_size": 2}),
    "ConvNeXt v2": ("ConvNextV2", {**_STAGES, "patch_size": 2}),
    "ResNet-18": (
        "ResNet",
        {
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 256],
            "depths": [2, 2, 2, 2],
            "layer_type": "basic",
        },
    ),
    "ResNet-50": (
        "ResNet",
        {
            "embedding_size": 32,
            "hidden_sizes": [64, 128, 256, 512],
            "depths": [3, 4, 6, 3],
            "layer_type": "bottleneck",
        },
    ),
    "RegNet": (
        "RegNet",
        {
            "embedding_size": 16,
            "hidden_sizes": [32, 64, 96, 128],
            "depths": [1, 2, 3, 1],
            "groups_width": 16,
        },
    ),
    "BiT": (
        "Bit",
        {
            "embedding_size": 16,
            "hidden_sizes": [32, 64, 128, 256],
            "depths": [1, 2, 2, 1],
            "num_groups": 8,
        },
    ),
    "MobileNet v1": ("MobileNetV1", {"depth_multiplier": 0.25, "image_size": 32, "min_depth": 8}),
    "MobileNet v2": ("MobileNetV2", {"depth_multiplier": 0.35, "image_size": 32}),
    "EfficientNet": (
        "EfficientNet",
        {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320},
    ),
    "SegFormer": (
        "Segformer",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 96], "decoder_hidden_size": 64},
    ),
    "PoolFormer": (
        "PoolFormer",
        {"depths": [1, 1, 2, 1], "hidden_sizes": [32, 64, 96, 128]},
    ),
    "PVT v2": (
        "PvtV2",
        {
            "image_size": 32,
            "hidden_sizes": [16, 32, 64, 96],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 6],
        },
    ),
    "FocalNet": (
        "FocalNet",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [1, 1, 2],
            "hidden_sizes": [32, 64, 128],
            "focal_levels": [2, 2, 2],
            "focal_windows": [3, 3, 3],
        },
    ),
    "MobileViT": (
        "MobileViT",
        {
            "image_size": 32,
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [8, 16, 24, 32, 48, 64, 96],
            "output_stride": 32,
        },
    ),
    "SwiftFormer": (
        "SwiftFormer",
        {"depths": [1, 1, 2, 1], "embed_dims": [16, 32, 64, 96]},
    ),
    "HGNet v2": (
        "HGNetV2",
        {
            "stem_channels": [3, 16, 16],
            "embedding_size": 16,
            "hidden_sizes": [32, 64, 96, 128],
            "stage_in_channels": [16, 32, 64, 96],
            "stage_mid_channels": [16, 16, 24, 32],
            "stage_out_channels": [32, 64, 96, 128],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
        },
    ),
}


def transformer(name: str) -> nn.Module:
    """Return one of transformers' image classifiers, with weights as the library draws them."""
    import transformers

    kind, settings = ARCHITECTURES[name]
    config = getattr(transformers, f"{kind}Config")(**settings, num_labels=CLASSES)
    model: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return model.train()


class Gated(nn.Module):
    """Attention pooling over patches with a gate of one unit, as in multiple-instance learning."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 64, 4, stride=4)
        self.value = nn.Sequential(nn.Linear(64, 64), nn.GELU())
        self.gate = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.value(self.embed(x).flatten(2).transpose(1, 2))
        return self.head((self.gate(tokens).softmax(1) * tokens).sum(1))


class Rows(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(96, 64, batch_first=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.transpose(1, 2).flatten(2))[0][:, -1])


class UNet(nn.Module):
    """Two levels down and up with a skip, and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.low = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.out = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        return self.head(self.out(torch.cat([a, self.up(self.low(a))], 1)).amax((2, 3)))


class Mixture(nn.Module):
    """Four experts and a softmax gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3072, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, CLASSES)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        each = torch.stack([expert(x) for expert in self.experts], 1)
        return (self.gate(x).softmax(1)[..., None] * each).sum(1)


class ReZero(nn.Module):
    """Residual blocks behind scalars that start at zero (Bachlechner et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3072, 96)
        self.blocks = nn.ModuleList(nn.Linear(96, 96) for _ in range(8))
        self.scales = nn.Parameter(torch.zeros(8))
        self.head = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for scale, block in zip(self.scales, self.blocks, strict=True):
            x = x + scale * block(x).relu()
        return self.head(x)


class LowRank(nn.Module):
    """A frozen layer with a low-rank adaptor that starts at zero (LoRA), and a trained head."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(3072, 128).requires_grad_(False)
        self.a, self.b = nn.Linear(3072, 8, bias=False), nn.Linear(8, 128, bias=False)
        nn.init.zeros_(self.b.weight)
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head((self.base(x) + self.b(self.a(x))).relu())


def lenet() -> nn.Module:
    """PyTorch's example for CIFAR-10."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, CLASSES),
    )


def encoder() -> nn.Module:
    """torch.nn's encoder over patches."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 64, 4, stride=4)
            self.place = nn.Parameter(torch.zeros(1, 64, 64))
            self.encoder = nn.TransformerEncoder(layer, 3)
            self.head = nn.Linear(64, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x).flatten(2).transpose(1, 2) + self.place
            return self.head(self.encoder(tokens).mean(1))

    return Patches()


def autoencoding() -> nn.Module:
    """A wide plain network with dropout, as in Keras' example for MNIST."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3072, 512),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(512, CLASSES),
    )


def trainings() -> list[Training]:
    """Return every healthy training."""
    found = []
    for name in ARCHITECTURES:
        convolutional = name.startswith(("ResNet", "RegNet", "BiT"))
        found.append(
            Training(
                name,
                lambda name=name: transformer(name),
                *((momentum(0.02), "momentum 0.02") if convolutional else (adamw(), "adamw 5e-4")),
            )
        )
    for name, make in {
        "attention pooling": Gated,
        "LSTM by rows": Rows,
        "U-Net": UNet,
        "mixture": Mixture,
        "ReZero": ReZero,
        "LoRA": LowRank,
        "LeNet": lenet,
        "torch encoder": encoder,
        "dropout MLP": autoencoding,
    }.items():
        found.append(Training(name, make, adam(), "adam 1e-3"))
    return found


def batches(steps: int, split: str = "train") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield standardised MNIST at 32 px in three channels."""
    images = load_mnist()[0 if split == "train" else 1]
    g = seeded(31, int(split == "train"))
    for _ in range(steps):
        rows = g.integers(len(images), size=BATCH)
        x = torch.from_numpy(np.array(images.pixels[rows])).float() / 255
        x = functional.pad((x - 0.1307) / 0.3081, (2, 2, 2, 2), value=-0.424)
        yield x.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(np.array(images.labels[rows]))


def loss_of(output: Any, targets: Tensor) -> Tensor:
    return functional.cross_entropy(getattr(output, "logits", output), targets)


def learnt(training: Training) -> float:
    """Return the accuracy on unseen images after TRAIN_STEPS steps."""
    torch.manual_seed(0)
    model = training.make().train()
    optimizer = training.optimizer(model.parameters())
    for step, (x, y) in enumerate(batches(TRAIN_STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial", group["lr"]) * min(1.0, (step + 1) / 50)
        optimizer.zero_grad()
        loss_of(model(training.fed(x)), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    right = []
    with torch.no_grad():
        for x, y in batches(20, "test"):
            output = model(training.fed(x))
            right.append((getattr(output, "logits", output).argmax(1) == y).float().mean().item())
    return sum(right) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train those that get an error")
    parser.add_argument("--only", nargs="*", help="names of trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    table = Table("training", "settings", "errors", "warnings", "seconds", "accuracy")
    rows = []
    for training in trainings():
        if arguments.only and training.name not in arguments.only:
            continue
        torch.manual_seed(0)
        start = time.perf_counter()
        pairs = [(training.fed(x), y) for x, y in batches(STEPS)]
        check = check_flow(training.make().train(), loss_of, pairs, optimizer=training.optimizer)
        seconds = time.perf_counter() - start
        errors = [f"{v.kind} ({v.subject})" for v in check.at_least("error")]
        warnings = [v.kind for v in check.verdicts if v.severity == "warning"]
        accuracy = learnt(training) if arguments.train and errors else None
        rows.append(
            {
                "training": training.name,
                "settings": training.settings,
                "errors": errors,
                "warnings": warnings,
                "seconds": seconds,
                "accuracy": accuracy,
            }
        )
        table.add_row(
            training.name,
            training.settings,
            "; ".join(errors),
            "; ".join(warnings),
            f"{seconds:.1f}",
            "" if accuracy is None else f"{accuracy:.2f}",
        )
        print(training.name, errors, warnings, f"{seconds:.1f} s", flush=True)
    console.print(table)
    alarms = [r for r in rows if r["errors"]]
    false = [r for r in alarms if r["accuracy"] is None or r["accuracy"] >= LEARNT]
    console.print(f"{len(alarms)} errors on {len(rows)} trainings; {len(false)} of them false")
    print(
        json.dumps(
            {"trainings": rows, "false_errors": len(false), "stamp": environment_stamp(threads=1)}
        )
    )


if __name__ == "__main__":
    main()
