"""The generator attack on any number of pairs of an image and a target class."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.coursework.generator.report_way import Training, report_way
from unmask.coursework.generator.smallest import smallest_change
from unmask.coursework.generator.stacked import Generators
from unmask.errors import UserError, unknown
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.refinement import refined
from unmask.fool.victim import Victim

MODES = ("fast", "course-report")
_HIDDEN = {"fast": 16, "course-report": 64}
_STEPS = {"fast": 60, "course-report": 1000}
_CHUNK_BYTES = 1 << 28
# The weights and, in the course report's way, gradients and Adam's two moments, with some room.
_COPIES = {"fast": 2, "course-report": 6}


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
    """Return images of the generators f_ij, trained until the classifier predicts the target class.

    Args:
        victim: the classifier.
        pixels: float[n, c, h, w] in [0, 1], one image for each pair.
        goal: the label and the target class of each pair.
        threat: the norm, and the largest change or None.
        generator: draws the weights, the same for all pairs.
        mode: "course-report", which doesn't limit the change, or "fast", which starts at the image
            in closed form, seeks the smallest change, or any within the threat's eps, and ends on
            values k / 255 where it can.
        hidden: width of both hidden layers, 16 in fast and 64 in course-report mode by default.
        steps: the most gradient evaluations of the classifier for each pair, 60 and 1000 by
            default.
        training: for the course-report mode, the settings that the report doesn't name.
        chunk: pairs trained side by side, by default as many as fit into 256 MiB; it changes no
            result.

    Returns:
        The images and the steps that each took.

    Raises:
        UserError: for an unknown mode and for a number below 1.
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
        if mode == "course-report":
            given = training or Training()
            parts.append(report_way(victim, part, aim, made, training=given, steps=steps))
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
    changed = refined(victim, pixels, found.pixels, goal, threat, reached)
    return Adversarials(changed, found.steps)
