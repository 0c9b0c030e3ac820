"""The plan of an audit: its defaults by the number of images, and what each attack is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unmask.data.images import Images
from unmask.fool.audit.plan import AuditPlan, default_pairs
from unmask.fool.audit.run import run_audit
from unmask.fool.source import as_victim


@pytest.mark.parametrize(("images", "pairs"), [(8, 1), (200, 2), (1000, 10), (60_000, 10)])
def test_pairs_which_take_longest_grow_with_the_images(images: int, pairs: int) -> None:
    assert default_pairs(images) == pairs


def test_queries_are_spent_again_only_where_they_may_be_enough() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 155, (60, 1, 6, 6)).astype(np.uint8)
    with torch.no_grad():
        logits = module(torch.from_numpy(pixels).float() / 255)
    weight = module[1].weight
    # Within the range of pixels the boundary is this far.
    distance = ((logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()).detach()
    # Between two distances, where rounding decides nothing.
    eps = float(distance.sort().values[29:31].mean())
    images = Images(pixels, logits.argmax(1).numpy(), ("0", "1"), "noise")
    found = run_audit(
        as_victim(module), images, AuditPlan(eps=(eps,), images=60, pairs=0, queries=50)
    )
    first, again = [r for r in found.records if r.name == "square"]
    assert first.tried == int((distance > eps).sum())
    assert again.tried == int(((distance > eps) & (distance <= 1.15 * eps)).sum()) > 0
