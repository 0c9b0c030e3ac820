"""Train the hardened classifiers that ship, on a GPU in minutes, and measure what they withstand.

    python benchmarks/release/train_hardened.py mnist --device cuda --minutes 4 --out runs/hardened
    python benchmarks/release/train_hardened.py cifar10 --cifar FOLDER --device cuda --minutes 5

It needs PyTorch, NumPy, safetensors and, for CIFAR-10's sheets, Pillow: nothing else of Unmask's
dependencies. It writes OUT/TASK.safetensors (half precision, as models.checkpoint has it),
OUT/TASK.json (settings, seconds, figures) and prints a line an epoch. MNIST is trained by two
recipes in half the time each; the one that does better on the images held out is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from unmask.fool.attacks import ATTACKS  # noqa: E402
from unmask.fool.goal import Goal  # noqa: E402
from unmask.fool.norms import NORMS, Threat  # noqa: E402
from unmask.fool.outcome import judge  # noqa: E402
from unmask.fool.victim import Victim  # noqa: E402
from unmask.models.cnn import build  # noqa: E402

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. margin: the attack's eps over that which is guarded."""

    name: str
    architecture: str
    settings: dict[str, Any]
    eps: float
    margin: float
    loss: str
    beta: float
    steps: int
    batch: int
    rate: float
    decay: float
    optimizer: str
    warmup: float
    shift: int
    flip: bool
    smoothing: float
    horizon: int
    held_out: int


MNIST = Recipe(
    name="trades",
    architecture="paired_cnn",
    settings={"widths": [48, 96], "hidden": 256},
    eps=0.3,
    margin=1.07,
    loss="trades",
    beta=2.0,
    steps=12,
    batch=256,
    rate=1e-3,
    decay=1e-4,
    optimizer="adamw",
    warmup=0.2,
    shift=1,
    flip=False,
    smoothing=0.0,
    horizon=1000,
    held_out=2000,
)
MNIST_PGD = Recipe(**{**asdict(MNIST), "name": "pgd", "loss": "adversarial", "margin": 1.1})
CIFAR = Recipe(
    name="pgd",
    architecture="wide_resnet",
    settings={"depth": 16, "widen": 4, "activation": "silu"},
    eps=8 / 255,
    margin=1.0,
    loss="adversarial",
    beta=0.0,
    steps=5,
    batch=256,
    rate=0.2,
    decay=5e-4,
    optimizer="sgd",
    warmup=0.1,
    shift=4,
    flip=True,
    smoothing=0.1,
    horizon=800,
    held_out=1000,
)


class Normalised(nn.Module):
    """A network that is given pixels in [0, 1]."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


@dataclass
class Data:
    """uint8 pixels [n, c, h, w] and labels, on the device."""

    train: Tensor
    train_labels: Tensor
    guard: Tensor
    guard_labels: Tensor
    test: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]


def mnist(path: Path | None, held_out: int, device: torch.device) -> Data:
    with np.load(path or ROOT / "src/unmask/data/mnist.npz") as file:
        names = {n.lower(): n for n in file.files}
        get = lambda *keys: next(file[names[k]] for k in keys if k in names)  # noqa: E731
        x, y = get("x_train", "train_pixels", "train_images"), get("y_train", "train_labels")
        tx, ty = get("x_test", "test_pixels", "test_images"), get("y_test", "test_labels")
    return _data(_channels(x), y, _channels(tx), ty, held_out, device, (0.0,), (1.0,))


def cifar10(folder: Path, held_out: int, device: torch.device) -> Data:
    from PIL import Image

    def sheets(name: str) -> np.ndarray:
        parts = []
        for file in sorted(folder.glob(f"{name}_*.webp")):
            sheet = np.asarray(Image.open(file).convert("RGB"))
            parts.append(
                sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
            )
        return np.concatenate(parts)

    with np.load(folder / "labels.npz") as file:
        y, ty = file["y_train"], file["y_test"]
    return _data(sheets("train"), y, sheets("test"), ty, held_out, device, CIFAR_MEAN, CIFAR_STD)


def _channels(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1, *pixels.shape[-2:])


def _data(
    x: np.ndarray,
    y: np.ndarray,
    tx: np.ndarray,
    ty: np.ndarray,
    held_out: int,
    device: torch.device,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    guard, learnt = np.sort(order[:held_out]), np.sort(order[held_out:])
    put = lambda a: torch.from_numpy(np.ascontiguousarray(a)).to(device)  # noqa: E731
    return Data(
        put(x[learnt]), put(y[learnt]).long(), put(x[guard]), put(y[guard]).long(),
        put(tx), put(ty).long(), mean, std,
    )  # fmt: skip


class Trainer:
    """One run: batches, the attack, the loss, the optimiser, and the moving average of weights."""

    def __init__(self, recipe: Recipe, data: Data, device: torch.device, seed: int) -> None:
        self.recipe, self.data, self.device = recipe, data, device
        torch.manual_seed(seed)
        shape = tuple(data.train.shape[1:])
        self.cuda = device.type == "cuda"
        network = build(recipe.architecture, recipe.settings, shape, 10)
        layout = torch.channels_last if self.cuda else torch.contiguous_format
        self.model = Normalised(network, data.mean, data.std).to(device, memory_format=layout)
        self.average = Normalised(
            build(recipe.architecture, recipe.settings, shape, 10), data.mean, data.std
        ).to(device, memory_format=layout)
        self.average.load_state_dict(self.model.state_dict())
        self.average.eval()
        weights = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": recipe.decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.rate = torch.tensor(recipe.rate, device=device)
        self.optimizer: torch.optim.Optimizer | None = None
        self.velocity = [torch.zeros_like(p) for p in self.model.parameters()]
        if recipe.optimizer == "adamw":
            rate = self.rate if self.cuda else recipe.rate
            self.optimizer = torch.optim.AdamW(
                groups, lr=rate, betas=(0.9, 0.99), capturable=self.cuda
            )
        self.eps = torch.zeros((), device=device)
        self.loss = torch.zeros((), device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.pixels = torch.empty(recipe.batch, *shape, device=device, memory_format=layout)
        self.labels = torch.zeros(recipe.batch, dtype=torch.int64, device=device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.seen = 0

    def autocast(self) -> Any:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.cuda, cache_enabled=False
        )

    def batches(self) -> Iterator[None]:
        """Fill pixels and labels with one batch after another, shuffled anew each epoch."""
        n, b = len(self.data.train), self.recipe.batch
        order = torch.randperm(n, device=self.device, generator=self.generator)
        for start in range(0, n - b + 1, b):
            rows = order[start : start + b]
            self.pixels.copy_(self.augmented(self.data.train[rows].float() / 255))
            self.labels.copy_(self.data.train_labels[rows])
            yield

    def augmented(self, pixels: Tensor) -> Tensor:
        s = self.recipe.shift
        n, _, h, w = pixels.shape
        if s:
            wide = functional.pad(pixels, (s, s, s, s))
            draw = lambda: torch.randint(  # noqa: E731
                2 * s + 1, (n, 1), device=self.device, generator=self.generator
            )
            ys = draw() + torch.arange(h, device=self.device)
            xs = draw() + torch.arange(w, device=self.device)
            at = torch.arange(n, device=self.device)[:, None, None]
            pixels = wide.permute(0, 2, 3, 1)[at, ys[:, :, None], xs[:, None, :]]
            pixels = pixels.permute(0, 3, 1, 2)
        if self.recipe.flip:
            turned = torch.rand(n, device=self.device, generator=self.generator) < 0.5
            pixels = torch.where(turned[:, None, None, None], pixels.flip(3), pixels)
        return pixels

    def attacked(self) -> Tensor:
        """Return the batch changed within eps so that the loss rises."""
        r, x, eps = self.recipe, self.pixels, self.eps
        step = max(2.5 / r.steps, 0.25) * eps
        clean = x
        if r.loss == "trades":
            with torch.no_grad(), self.autocast():
                clean = self.model(x).float().softmax(1)
        at = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(r.steps):
            at = at.detach().requires_grad_()
            with self.autocast():
                logits = self.model(at).float()
            if r.loss == "trades":
                loss = functional.kl_div(logits.log_softmax(1), clean, reduction="sum")
            else:
                loss = functional.cross_entropy(logits, self.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, at)
            moved = at.detach() + step * gradient.sign()
            at = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
        return at.detach()

    def capture(self) -> None:
        """Record a step as a CUDA graph, which spares the launch of each kernel."""
        self.rate.zero_()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.forget()
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.forget()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self.step()
        self.graph = graph

    def forget(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def advance(self) -> Tensor:
        """Train on the batch, by the graph where there is one; return its loss."""
        if self.graph is not None:
            self.graph.replay()
            return self.loss
        self.forget()
        return self.step()

    def step(self) -> Tensor:
        """Train on the batch; return its loss."""
        r = self.recipe
        self.model.eval()
        adversarial = self.attacked()
        self.model.train()
        if r.loss == "trades":
            with self.autocast():
                clean, hard = self.model(torch.cat([self.pixels, adversarial])).float().chunk(2)
            natural = functional.cross_entropy(clean, self.labels, label_smoothing=r.smoothing)
            apart = functional.kl_div(hard.log_softmax(1), clean.softmax(1), reduction="batchmean")
            # The label of the attacked image too: with KL alone wrong images are left alone.
            direct = functional.cross_entropy(hard, self.labels, label_smoothing=r.smoothing)
            loss = 0.5 * natural + 0.5 * direct + 0.5 * r.beta * apart
        else:
            with self.autocast():
                logits = self.model(adversarial).float()
            loss = functional.cross_entropy(logits, self.labels, label_smoothing=r.smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0, foreach=True)
        if self.optimizer is not None:
            self.optimizer.step()
        else:
            self.momentum_step()
        return loss.detach()

    @torch.no_grad()
    def momentum_step(self) -> None:
        """Descend with Nesterov's momentum at a rate that is a tensor."""
        weights = list(self.model.parameters())
        gradients = [p.grad for p in weights]
        decay = [self.recipe.decay if p.ndim > 1 else 0.0 for p in weights]
        gradients = torch._foreach_add(gradients, torch._foreach_mul(weights, decay))
        torch._foreach_mul_(self.velocity, 0.9)
        torch._foreach_add_(self.velocity, gradients)
        ahead = torch._foreach_add(gradients, torch._foreach_mul(self.velocity, 0.9))
        torch._foreach_sub_(weights, torch._foreach_mul(ahead, self.rate))

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the weights; at first it is their plain mean."""
        self.seen += 1
        part = max(1 / self.recipe.horizon, 1 / (1 + self.seen))
        mine, other = self.average.state_dict(), self.model.state_dict()
        floating = [k for k in mine if mine[k].is_floating_point()]
        torch._foreach_lerp_([mine[k] for k in floating], [other[k] for k in floating], part)

    def rates(self, done: float) -> float:
        """Return the learning rate when that part of the time is spent: up, then a cosine."""
        r = self.recipe
        if done < 0.05:
            return r.rate * max(done / 0.05, 0.02)
        return r.rate * max(0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95)), 1e-3)

    def run(self, seconds: float, most_steps: int | None = None) -> dict[str, Any]:
        r, begun = self.recipe, time.perf_counter()
        epoch, steps, losses = 0, 0, torch.zeros((), device=self.device)
        if self.cuda:
            next(self.batches())
            try:
                self.capture()
            except Exception as error:  # whatever a driver says, training without a graph goes on
                print(f"no CUDA graph: {error}", flush=True)
                torch.cuda.synchronize()
                self.graph = None
            print(f"{r.name}: ready after {time.perf_counter() - begun:.1f} s", flush=True)
            begun = time.perf_counter()
        while True:
            for _ in self.batches():
                done = (time.perf_counter() - begun) / seconds
                if most_steps is not None:
                    done = steps / most_steps
                if done >= 1:
                    break
                self.eps.fill_(r.eps * r.margin * min(1.0, done / r.warmup))
                self.rate.fill_(self.rates(done))
                if self.optimizer is not None and not self.cuda:
                    for group in self.optimizer.param_groups:
                        group["lr"] = self.rates(done)
                losses += self.advance()
                # What was learnt before the change was at its full size plays no part.
                if done < r.warmup:
                    self.seen = 0
                self.follow()
                steps += 1
                if self.cuda and steps % 32 == 0:
                    # The clock is to show what is done, not what is queued.
                    torch.cuda.synchronize()
            epoch += 1
            spent = time.perf_counter() - begun
            done = steps / most_steps if most_steps is not None else spent / seconds
            if epoch % 5 == 1 or done >= 1:
                print(
                    f"{r.name}: epoch {epoch}, {steps} steps, {spent:.0f} s of {seconds:.0f}, mean "
                    f"loss {float(losses) / max(steps, 1):.4f}, guard clean "
                    f"{clean_accuracy(self.average, self.data.guard, self.data.guard_labels):.4f}, "
                    f"PGD-10 {self.quick():.4f}",
                    flush=True,
                )
            if done >= 1:
                return {"epochs": epoch, "steps": steps, "seconds": spent}

    def quick(self) -> float:
        """Return the part of 1000 images of the guard that 10 steps of descent leave right."""
        x = self.data.guard[:1000].float() / 255
        y = self.data.guard_labels[:1000]
        eps, at = self.recipe.eps, x + 0
        for _ in range(10):
            at = at.detach().requires_grad_()
            loss = functional.cross_entropy(self.average(at), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, at)
            at = at.detach() + eps / 4 * gradient.sign()
            at = torch.minimum(torch.maximum(at, x - eps), x + eps).clamp(0, 1)
        with torch.no_grad():
            return float((self.average(at).argmax(1) == y).float().mean())


@torch.no_grad()
def clean_accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    right = 0
    for start in range(0, len(pixels), 2000):
        part = slice(start, start + 2000)
        right += int((model(pixels[part].float() / 255).argmax(1) == labels[part]).sum())
    return right / len(pixels)


def exact(*, on: bool) -> None:
    """Let a GPU multiply in float32, or in TF32, which is several times as fast."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not on


def standing(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    eps: float,
    plan: list[tuple[str, dict[str, Any]]],
    seconds: float,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Return bool[n]: which images stand against the attacks, each shown what is left, and when."""
    begun = time.perf_counter()
    exact(on=True)
    victim = Victim(model, classes=10, batch=5000, device=pixels.device)
    x = pixels.float() / 255
    left = victim.logits(x).argmax(1) == labels
    told = [{"attack": "clean", "standing": int(left.sum()), "seconds": 0.0}]
    threat = Threat(NORMS["linf"], eps)
    for number, (name, settings) in enumerate(plan):
        if time.perf_counter() - begun > seconds:
            told.append({"attack": name, "standing": None, "seconds": None})
            continue
        rows = left.nonzero().flatten()
        goal = Goal(labels[rows])
        exact(on=False)
        found = ATTACKS[name].function(
            victim, x[rows], goal, threat,
            generator=torch.Generator().manual_seed(number), **settings,
        )  # fmt: skip
        exact(on=True)
        reached = judge(victim, x[rows], found, goal, threat).reached
        left[rows[torch.from_numpy(reached).to(rows.device)]] = False
        spent = time.perf_counter() - begun
        told.append({"attack": name, **settings, "standing": int(left.sum()), "seconds": spent})
        print(
            f"  {name} {settings}: {int(left.sum())} of {len(x)} stand, {spent:.0f} s", flush=True
        )
    return left, told


GUARD = [("apgd-ce", {"steps": 50}), ("apgd-t", {"steps": 30}), ("square", {"queries": 1000})]
FULL = [
    ("apgd-ce", {"steps": 100}),
    ("apgd-t", {"steps": 100}),
    ("square", {"queries": 5000}),
    ("apgd-ce", {"steps": 100, "restarts": 3}),
]


def reference(model: nn.Module, pixels: Tensor, labels: Tensor, eps: float, folder: str) -> Any:
    """Return what AutoAttack's standard set leaves standing; its package lies in folder."""
    sys.path.insert(0, folder)
    from pyautoattack import AutoAttack

    attack = AutoAttack(
        model, norm="Linf", eps=eps, version="standard", device=str(pixels.device), verbose=True
    )
    exact(on=True)
    x = pixels.float() / 255
    changed = attack.run_standard_evaluation(x, labels, bs=5000)
    changed = changed[0] if isinstance(changed, tuple) else changed
    changed = torch.minimum(torch.maximum(changed, x - eps), x + eps).clamp(0, 1)
    with torch.no_grad():
        parts = [model(part).argmax(1) for part in changed.split(2000)]
    return int((torch.cat(parts) == labels).sum())


def write(path: Path, model: Normalised) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    half = {
        k: (v.half() if v.is_floating_point() else v).cpu().contiguous()
        for k, v in model.network.state_dict().items()
    }
    save_file(half, path)


def trained(
    recipe: Recipe, data: Data, device: torch.device, seconds: float, arguments: argparse.Namespace
) -> tuple[Trainer, dict[str, Any]]:
    trainer = Trainer(recipe, data, device, arguments.seed)
    size = sum(p.numel() for p in trainer.model.parameters())
    print(f"{recipe.name}: {size:,} parameters, {seconds:.0f} s", flush=True)
    told = trainer.run(seconds, arguments.steps)
    # What ships is half precision: measure that.
    for parameter in trainer.average.network.state_dict().values():
        if parameter.is_floating_point():
            parameter.copy_(parameter.half().float())
    plain = Normalised(
        build(recipe.architecture, recipe.settings, tuple(data.train.shape[1:]), 10),
        data.mean,
        data.std,
    ).to(device)
    plain.load_state_dict(trainer.average.state_dict())
    trainer.average = plain.eval().requires_grad_(requires_grad=False)
    guard, seen = standing(
        trainer.average, data.guard, data.guard_labels, recipe.eps, GUARD, seconds
    )
    robust = float(guard.float().mean())
    return trainer, {**told, "parameters": size, "guard_robust": robust, "guard": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("mnist", "cifar10"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, all recipes")
    parser.add_argument("--evaluation-minutes", type=float, default=1.5)
    parser.add_argument("--mnist", type=Path, help="another mnist.npz than the package's")
    parser.add_argument("--cifar", type=Path, default=Path("/tmp/cifar"))
    parser.add_argument("--autoattack", help="a folder that holds the package pyautoattack")
    parser.add_argument("--images", type=int, default=10_000, help="test images attacked")
    parser.add_argument("--only", help="of MNIST's recipes, this one")
    parser.add_argument("--steps", type=int, help="so many steps instead, to try it out")
    parser.add_argument("--weights", type=Path, help="measure these, of --only's recipe, instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/hardened"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    # Training may round as it likes; what is measured is measured in float32.
    torch.backends.cudnn.benchmark = True
    exact(on=False)
    recipes = [CIFAR] if arguments.task == "cifar10" else [MNIST, MNIST_PGD]
    recipes = [r for r in recipes if arguments.only in (None, r.name)]
    if arguments.task == "mnist":
        data = mnist(arguments.mnist, recipes[0].held_out, device)
    else:
        data = cifar10(arguments.cifar, recipes[0].held_out, device)
    print(f"{arguments.task}: {len(data.train):,} images to learn from, {device}", flush=True)
    best: tuple[Trainer, dict[str, Any]] | None = None
    tried = []
    if arguments.weights is not None:
        from safetensors.torch import load_file

        kept = Trainer(recipes[0], data, device, arguments.seed)
        state = {k: v.to(device).float() for k, v in load_file(arguments.weights).items()}
        kept.average.network.load_state_dict(state)
        kept.average.requires_grad_(requires_grad=False)
        best, recipes = (kept, {}), []
    for recipe in recipes:
        seconds = 60 * arguments.minutes / len(recipes)
        try:
            run = trained(recipe, data, device, seconds, arguments)
        except torch.cuda.OutOfMemoryError as error:
            print(f"{recipe.name}: {error}", flush=True)
            continue
        tried.append({"recipe": asdict(recipe), **run[1]})
        if best is None or run[1]["guard_robust"] > best[1]["guard_robust"]:
            best = run
            write(arguments.out / f"{arguments.task}.safetensors", run[0].average)
    assert best is not None
    trainer, _ = best
    test, labels = data.test[: arguments.images], data.test_labels[: arguments.images]
    figures: dict[str, Any] = {
        "task": arguments.task,
        "kept": asdict(trainer.recipe),
        "tried": tried,
        "seed": arguments.seed,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if trainer.cuda else "cpu",
        "clean": clean_accuracy(trainer.average, data.test, data.test_labels),
    }
    print(f"kept {trainer.recipe.name}; clean accuracy {figures['clean']:.4f}", flush=True)

    def note() -> None:
        name = f"{arguments.task}{'-measured' if arguments.weights else ''}.json"
        (arguments.out / name).write_text(json.dumps(figures, indent=1))

    arguments.out.mkdir(parents=True, exist_ok=True)
    note()
    if arguments.evaluation_minutes > 0:
        left, told = standing(
            trainer.average,
            test,
            labels,
            trainer.recipe.eps,
            FULL,
            60 * arguments.evaluation_minutes,
        )
        figures["attacks"] = told
        figures["robust"] = [int(left.sum()), len(left)]
        np.save(arguments.out / f"{arguments.task}-standing.npy", left.cpu().numpy())
        note()
        print(f"robust: {int(left.sum())} of {len(left)}", flush=True)
    if arguments.autoattack:
        begun = time.perf_counter()
        figures["autoattack_standard"] = [
            reference(trainer.average, test, labels, trainer.recipe.eps, arguments.autoattack),
            len(test),
        ]
        figures["autoattack_seconds"] = time.perf_counter() - begun
        note()
        print(f"AutoAttack: {figures['autoattack_standard']}", flush=True)


if __name__ == "__main__":
    main()
