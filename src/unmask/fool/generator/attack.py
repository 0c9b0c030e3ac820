"""The generator attack on any number of pairs of an image and a class."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.errors import UserError, unknown
from unmask.fool.generator.document import Training, document_way
from unmask.fool.generator.smallest import smallest_change
from unmask.fool.generator.stacked import Generators
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.refinement import to_boundary, to_eight_bits
from unmask.fool.victim import Victim

MODES = ("fast", "document")
_HIDDEN = {"fast": 16, "document": 64}
_STEPS = {"fast": 60, "document": 1000}
_CHUNK_BYTES = 1 << 28
# The weights and, in document mode, their gradients and Adam's two moments, with room to compute.
_COPIES = {"fast": 2, "document": 6}


def generator_attack(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    mode: str = "fast",
    hidden: int | None = None,
    steps: int | None = None,
    training: Training | None = None,
    chunk: int | None = None,
) -> Adversarials:
    """Return the images that generators f_ij give once the classifier says their class.

    pixels: float[n, c, h, w] in [0, 1], one a pair. mode "document" is the way of the course
    report, whose images are as near as they happen to be; "fast" starts at the image in closed
    form, seeks the smallest change, or any within the threat's eps, and ends on values k / 255
    where it can.
    hidden: units of both hidden layers, 16 in fast and 64 in document mode by default. steps:
    gradient evaluations of the classifier a pair at most, 60 and 1000 by default. chunk: pairs
    trained side by side, by default as many as fit into 256 MiB; it changes no result. The weights
    are drawn from generator, the same for all pairs. Raises UserError for an unknown mode and for
    a number below 1.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    hidden = _HIDDEN[mode] if hidden is None else hidden
    steps = _STEPS[mode] if steps is None else steps
    for name, number in (("hidden units", hidden), ("steps", steps)):
        if number < 1:
            raise UserError(f"a generator needs {name}", got=number, do="give 1 or more")
    size = pixels[0].numel() if len(pixels) else 1
    if chunk is None:
        weights = 2 * hidden + hidden * (hidden + 1) + size * (hidden + 1)
        chunk = max(1, _CHUNK_BYTES // (_COPIES[mode] * weights * pixels.element_size()))
    state = generator.get_state()
    parts = []
    for start in range(0, len(pixels), chunk):
        rows = slice(start, start + chunk)
        part, aim = pixels[rows], goal[rows]
        generator.set_state(state)
        made = Generators(len(part), size, hidden=hidden, generator=generator, like=part)
        if mode == "document":
            given = training or Training()
            parts.append(document_way(victim, part, aim, made, training=given, steps=steps))
        else:
            parts.append(_fast(victim, part, aim, threat, made, steps))
    if not parts:
        return Adversarials(pixels.clone(), torch.empty(0, dtype=torch.int64))
    return Adversarials(
        torch.cat([part.pixels for part in parts]), torch.cat([part.steps for part in parts])
    )


def _fast(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    generators: Generators,
    steps: int,
) -> Adversarials:
    found, reached = smallest_change(victim, pixels, goal, threat, generators, steps=steps)
    pictures, rows = found.pixels, reached.nonzero().flatten()
    originals, aim = pixels[rows], goal[rows]
    near = pictures[rows]
    if threat.eps is None:
        near = to_boundary(victim, originals, near, aim)
    rounded, good = to_eight_bits(victim, originals, near, aim, threat)
    pictures[rows] = torch.where(good[:, None, None, None], rounded, near)
    return Adversarials(pictures, found.steps)
