"""Healthy trainings: networks that others made, and the first examples of libraries' documents.

The networks have the weights that their libraries draw; the optimisers are the usual ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10


@dataclass(frozen=True)
class Training:
    """A healthy training: what makes the network, its optimiser, and how it takes images."""

    name: str
    make: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    settings: str = "adam 1e-3"
    size: int = 32


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


def transformer(kind: str, settings: dict[str, Any]) -> nn.Module:
    """Return one of transformers' image classifiers, with weights as the library draws them."""
    import transformers

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


# timm's networks, by name, with what is asked of them beside their defaults.
TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 4, "depth": 4},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "patch_size": 4, "depth": 4},
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "resnet10t": {},
    "regnetx_002": {},
    "mobilenetv3_small_050": {},
    "mnasnet_small": {},
    "lcnet_050": {},
    "tinynet_e": {},
    "efficientnet_b0": {},
    "ghostnet_050": {},
    "repvgg_a0": {},
    "edgenext_xx_small": {},
}
# At 224 px, few layers for their cost: what is asked is the size of the image.
LARGE: dict[str, dict[str, Any]] = {
    "mobilenetv3_small_050": {},
    "lcnet_050": {},
    "vit_tiny_patch16_224": {"depth": 3},
    "convnext_atto": {"depths": (1, 1, 2, 1)},
}
LARGE_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", {**_WIDE, "intermediate_size": 192, "image_size": 224, "patch_size": 16}),
    "Swin": ("Swin", {"image_size": 224, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}),
    "ConvNeXt": ("ConvNext", {**_STAGES, "patch_size": 4}),
}


def timm_model(name: str, **settings: Any) -> nn.Module:
    """Return one of timm's classifiers, with weights as the library draws them."""
    import timm

    model: nn.Module = timm.create_model(name, num_classes=CLASSES, **settings)
    if hasattr(model, "set_distilled_training"):
        model.set_distilled_training(False)
    return model.train()


def trainings() -> list[Training]:
    """Return every healthy training; those of timm only where it is installed."""
    found = []
    for name, (kind, settings) in ARCHITECTURES.items():
        convolutional = name.startswith(("ResNet", "RegNet", "BiT"))
        usual = (momentum(0.02), "momentum 0.02") if convolutional else (adamw(), "adamw 5e-4")
        found.append(Training(name, partial(transformer, kind, settings), *usual))
    for name, (kind, settings) in LARGE_TRANSFORMERS.items():
        make = partial(transformer, kind, settings)
        found.append(Training(f"{name} at 224 px", make, adamw(), "adamw 5e-4", size=224))
    for name, own in {
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
        found.append(Training(name, own, adam(), "adam 1e-3"))
    if importlib.util.find_spec("timm") is None:
        return found
    for name, settings in TIMM.items():
        make = partial(timm_model, name, **settings)
        found.append(Training(f"timm {name}", make, adamw(1e-3), "adamw 1e-3"))
    for name, settings in LARGE.items():
        make = partial(timm_model, name, **settings)
        found.append(Training(f"timm {name} at 224 px", make, adamw(), "adamw 5e-4", size=224))
    return found
