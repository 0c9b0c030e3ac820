"""What the detector is timed beside: a two-stage one, and a network of YOLOv8n's published size."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from PIL import Image
from torch import Tensor, nn

from unmask.data.detection.boxes import clip, nms
from unmask.mask.runtime.detector import THREADS
from unmask.mask.runtime.views import View, network_input
from unmask.runtime import cpu_threads

SIZE = (640, 480)
WHOLE = View(0, 0, *SIZE, *SIZE)
CROP = 64
Look = Callable[[Image.Image], int]
Found = tuple[np.ndarray, np.ndarray]


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = 4
    for name, value in THREADS.items():
        options.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def exported(network: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> bytes:
    """Return the network as ONNX, of fixed size but for the number of crops."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "network.onnx"
        program = torch.onnx.export(
            network.eval(), (inputs,), output_names=list(names), dynamo=True, verbose=False
        )
        program.save(file)
        return file.read_bytes()


# --- two stages: YuNet finds faces, a classifier looks at their crops


def crop_classifier() -> nn.Module:
    """Three blocks of convolution and pooling, a dense layer of 64, three classes."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(128 * (CROP // 8) ** 2, 64), nn.ReLU(), nn.Linear(64, 3)
    )


def yunet(file: Path, size: tuple[int, int]) -> Callable[[np.ndarray, float], Found]:
    """Return YuNet for pictures uint8[h, w, 3] of that width and height: boxes and scores.

    What it returns takes the least score too; its boxes overlap by 0.3 at most.
    """
    model = onnx.load(file)
    for dim, value in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 3, size[1], size[0]), strict=True
    ):
        dim.dim_value = value
    # The file holds the shapes of its usual size of input; they are inferred anew.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    finder = session(model.SerializeToString())
    given = finder.get_inputs()[0].name
    names = [output.name for output in finder.get_outputs()]

    def find(picture: np.ndarray, least: float) -> Found:
        # YuNet takes blue, green, red in 0 to 255.
        pixels = picture[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        found = dict(zip(names, finder.run(names, {given: pixels}), strict=True))
        boxes, scores = _yunet_boxes(found, size[0], least)
        kept = nms(boxes, scores, 0.3)
        return clip(boxes[kept], *size), scores[kept]

    return find


def two_stage(file: Path) -> Look:
    """Return what looks at a picture with YuNet at 640 x 480 and classifies what it finds."""
    find = yunet(file, SIZE)
    judge = session(exported(crop_classifier(), torch.zeros(1, 3, CROP, CROP), ("logits",)))
    crop_name = judge.get_inputs()[0].name

    def look(picture: Image.Image) -> int:
        boxes, _ = find(np.asarray(picture), 0.6)
        for box in boxes:
            crop = picture.resize((CROP, CROP), Image.Resampling.BILINEAR, box=_area(box))
            face = np.asarray(crop).transpose(2, 0, 1)[None].astype(np.float32) / 255
            judge.run(["logits"], {crop_name: face})
        return len(boxes)

    return look


def _area(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _yunet_boxes(found: dict[str, np.ndarray], width: int, least: float) -> Found:
    boxes, scores = [], []
    for stride in (8, 16, 32):
        score = np.sqrt(
            np.clip(found[f"cls_{stride}"][0, :, 0], 0, 1)
            * np.clip(found[f"obj_{stride}"][0, :, 0], 0, 1)
        )
        at = np.flatnonzero(score > least)
        y, x = np.divmod(at, width // stride)
        dx, dy, dw, dh = found[f"bbox_{stride}"][0, at].T
        cx, cy = (x + dx) * stride, (y + dy) * stride
        w, h = np.exp(dw) * stride, np.exp(dh) * stride
        boxes.append(np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1))
        scores.append(score[at])
    return np.concatenate(boxes).astype(np.float32), np.concatenate(scores).astype(np.float32)


# --- one stage of YOLOv8n's published size: 3.2 million parameters, 8.7 GFLOP at 640 x 640


class Conv(nn.Sequential):
    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(n_out),
            nn.SiLU(),
        )


class Split(nn.Module):
    """Half of the channels go through residual blocks, and all that came of them is joined."""

    def __init__(self, n_in: int, n_out: int, blocks: int, residual: bool) -> None:
        super().__init__()
        half = n_out // 2
        self.residual = residual
        self.enter = Conv(n_in, n_out, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(Conv(half, half), Conv(half, half)) for _ in range(blocks)
        )
        self.leave = Conv((2 + blocks) * half, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            made = block(parts[-1])
            parts.append(parts[-1] + made if self.residual else made)
        return self.leave(torch.cat(parts, 1))


class Pooled(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.enter, self.leave = Conv(n, n // 2, 1), Conv(2 * n, n, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class YoloSized(nn.Module):
    """Pixels to boxes (sides in strides) and class scores at strides 8, 16 and 32."""

    BINS = 16

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 16, stride=2), Conv(16, 32, stride=2), Split(32, 32, 1, True)
        )
        self.third = nn.Sequential(Conv(32, 64, stride=2), Split(64, 64, 2, True))
        self.fourth = nn.Sequential(Conv(64, 128, stride=2), Split(128, 128, 2, True))
        self.fifth = nn.Sequential(Conv(128, 256, stride=2), Split(256, 256, 1, True), Pooled(256))
        self.up = nn.Upsample(scale_factor=2)
        self.down4, self.down3 = Split(384, 128, 1, False), Split(192, 64, 1, False)
        self.step4, self.up4 = Conv(64, 64, stride=2), Split(192, 128, 1, False)
        self.step5, self.up5 = Conv(128, 128, stride=2), Split(384, 256, 1, False)
        middle = max(64, min(classes, 100))
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(n, 64), Conv(64, 64), nn.Conv2d(64, 4 * self.BINS, 1))
            for n in (64, 128, 256)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(Conv(n, middle), Conv(middle, middle), nn.Conv2d(middle, classes, 1))
            for n in (64, 128, 256)
        )
        self.register_buffer("bins", torch.arange(self.BINS, dtype=torch.float32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        down4 = self.down4(torch.cat([self.up(fifth), fourth], 1))
        down3 = self.down3(torch.cat([self.up(down4), third], 1))
        up4 = self.up4(torch.cat([self.step4(down3), down4], 1))
        up5 = self.up5(torch.cat([self.step5(up4), fifth], 1))
        maps = (down3, up4, up5)
        sides = torch.cat([h(m).flatten(2) for h, m in zip(self.boxes, maps, strict=True)], 2)
        scores = torch.cat([h(m).flatten(2) for h, m in zip(self.scores, maps, strict=True)], 2)
        shares = sides.unflatten(1, (4, self.BINS)).softmax(2)
        return (shares * self.bins[:, None]).sum(2), scores.sigmoid()


def in_whole_numbers(model: bytes, pixels: np.ndarray) -> bytes:
    """Return the network with all that ONNX Runtime can make whole numbers, by one picture."""
    seen = iter([{session(model).get_inputs()[0].name: pixels}])
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        given.write_bytes(model)
        quantization.quant_pre_process(given, prepared, skip_symbolic_shape=True)
        reader = SimpleNamespace(get_next=lambda: next(seen, None))
        # As ours, in unsigned features and 7 bits of filters, but for which parts stay as they are.
        quantization.quantize_static(
            prepared,
            made,
            reader,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return made.read_bytes()


def yolo_sized() -> tuple[dict[str, Look], dict[str, Any]]:
    """Return what looks at a picture with the network, as it is and in 8 bits, and its size.

    Parameters are those of the published 80 classes; what is timed has three.
    """
    torch.manual_seed(0)
    published = YoloSized()
    facts = {
        "parameters": sum(p.numel() for p in published.parameters()),
        "gflop_at_640": 2 * multiply_adds(published, torch.zeros(1, 3, 640, 640)) / 1e9,
    }
    pixels = torch.rand(1, 3, SIZE[1], SIZE[0])
    model = exported(YoloSized(3), pixels, ("sides", "scores"))
    whole = in_whole_numbers(model, pixels.numpy())
    return {"YOLOv8n's size": _yolo_look(model), "the same in 8 bits": _yolo_look(whole)}, facts


def _yolo_look(model: bytes) -> Look:
    runner = session(model)
    name = runner.get_inputs()[0].name
    places = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[0 : SIZE[1] // stride, 0 : SIZE[0] // stride]
        places.append(np.stack([x.ravel() + 0.5, y.ravel() + 0.5, np.full(x.size, stride)]))
    x, y, stride = np.concatenate(places, 1)

    def look(picture: Image.Image) -> int:
        pixels = network_input(picture, WHOLE)
        sides, scores = (part[0] for part in runner.run(["sides", "scores"], {name: pixels}))
        # Random weights say nothing: as many boxes as a crowd has are taken as found.
        best = np.argpartition(-scores.max(0), 40)[:40]
        left, top, right, bottom = sides[:, best]
        at, up = x[best], y[best]
        corners = np.stack([at - left, up - top, at + right, up + bottom], 1) * stride[best, None]
        return len(nms(corners.astype(np.float32), scores.max(0)[best], 0.5))

    return look


def multiply_adds(network: nn.Module, inputs: Tensor) -> int:
    total = 0

    def count(module: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += out.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network.eval()(inputs)
    for hook in hooks:
        hook.remove()
    return total
