"""Small networks and the exact minimum of a linear function of their logits."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from torch import Tensor, nn

from unmask.fool.certify.region import Region


def mlp(
    seed: int, widths: tuple[int, ...] = (4, 5, 4, 3), act: type[nn.Module] = nn.ReLU
) -> nn.Module:
    """Layers of those widths on images of shape (1, 2, widths[0] / 2), in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Linear(a, b)]
            if i < len(widths) - 2:
                layers += [act()]
        net = nn.Sequential(*layers).double()
        for p in net.parameters():
            p.data.mul_(1.5)
    return net.eval()


class Branched(nn.Module):
    """Convolutions, batch norm, pooling of three kinds, a residual sum, a concatenation."""

    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.act = act()
        self.second = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.mean = nn.AvgPool2d(2, padding=1)
        self.head = nn.Linear(4 * 2 * 2 + 4 * 2 * 2 + 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first((x - 0.4) / torch.tensor([0.2, 0.3])[:, None, None])))
        x = x + self.act(self.second(x))
        parts = [self.pool(x).flatten(1), self.mean(x).flatten(1), torch.amax(x, (2, 3))]
        logits: Tensor = self.head(torch.cat(parts, 1))
        return logits


def branched(seed: int, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Branched(act)
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(net.norm.weight)
    return net.eval()


def within(region: Region, count: int, seed: int = 0) -> Tensor:
    """Images of the region, float64[count, b, c, h, w], half of them at its box's corners."""
    generator = torch.Generator().manual_seed(seed)
    box = region.box
    part = torch.rand(count, *region.images.shape, generator=generator, dtype=torch.float64)
    part[::2] = part[::2].round()
    found = box.lower + part * (box.upper - box.lower)
    if region.norm == "l2":
        change = found - region.images
        size = change.flatten(2).norm(dim=2)
        factor = (region.eps / size.clamp(min=1e-12)).clamp(max=1)
        found = region.images + change * factor[..., None, None, None]
    return found


def _layers(net: nn.Module) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
        for m in net.modules()
        if isinstance(m, nn.Linear)
    ]


def minimum_by_patterns(net: nn.Module, low: np.ndarray, high: np.ndarray, c: np.ndarray) -> float:
    """The minimum of c . logits of a ReLU MLP over a box: a linear program for each pattern."""
    layers = _layers(net)
    hidden = [len(b) for _, b in layers[:-1]]
    best = np.inf
    for pattern in itertools.product((0, 1), repeat=sum(hidden)):
        matrix, offset = np.eye(len(low)), np.zeros(len(low))
        rows, limits = [], []
        at = 0
        for weight, bias in layers[:-1]:
            matrix, offset = weight @ matrix, weight @ offset + bias
            on = np.array(pattern[at : at + len(bias)])
            at += len(bias)
            sign = np.where(on, -1.0, 1.0)
            rows.append(sign[:, None] * matrix)
            limits.append(-sign * offset)
            matrix, offset = on[:, None] * matrix, on * offset
        weight, bias = layers[-1]
        matrix, offset = c @ weight @ matrix, c @ (weight @ offset + bias)
        found = linprog(
            matrix,
            A_ub=np.vstack(rows),
            b_ub=np.concatenate(limits),
            bounds=np.stack([low, high], 1),
        )
        if found.status == 0:
            best = min(best, found.fun + offset)
    return float(best)


def minimum_by_milp(net: nn.Module, low: np.ndarray, high: np.ndarray, c: np.ndarray) -> float:
    """The minimum of c . logits of a ReLU MLP over a box, by a mixed-integer program."""
    layers = _layers(net)
    count = len(low)
    lower, upper, whole = list(low), list(high), [0] * count
    before = np.arange(count)
    rows: list[dict[int, float]] = []
    least: list[float] = []
    most: list[float] = []

    def add(row: dict[int, float], a: float, b: float) -> None:
        rows.append(row)
        least.append(a)
        most.append(b)

    box = np.asarray(low), np.asarray(high)
    for weight, bias in layers[:-1]:
        centre, radius = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
        mid, wide = weight @ centre + bias, np.abs(weight) @ radius
        l, u = mid - wide, mid + wide
        after = []
        for i in range(len(bias)):
            y, on = len(lower), len(lower) + 1
            lower += [0.0, 0.0]
            upper += [max(u[i], 0.0), 1.0]
            whole += [0, 1]
            sums = {int(j): float(w) for j, w in zip(before, weight[i], strict=True)}
            # y >= z, y <= z - l (1 - on), y <= u on.
            add({y: 1.0, **{j: -w for j, w in sums.items()}}, bias[i], np.inf)
            low_end, high_end = min(l[i], 0.0), max(u[i], 0.0)
            row = {y: 1.0, on: -low_end, **{j: -w for j, w in sums.items()}}
            add(row, -np.inf, bias[i] - low_end)
            add({y: 1.0, on: -high_end}, -np.inf, 0.0)
            after.append(y)
        before = np.array(after)
        box = np.maximum(l, 0), np.maximum(u, 0)
    weight, bias = layers[-1]
    cost = np.zeros(len(lower))
    cost[before] = c @ weight
    matrix = np.zeros((len(rows), len(lower)))
    for i, row in enumerate(rows):
        for j, value in row.items():
            matrix[i, j] += value
    found = milp(
        cost,
        integrality=np.array(whole),
        bounds=Bounds(np.array(lower), np.array(upper)),
        constraints=LinearConstraint(matrix, np.array(least), np.array(most)),
        options={"mip_rel_gap": 0.0},
    )
    assert found.status == 0
    return float(found.fun + c @ bias)
