"""The Fool tab: an image changed, step by step, until another class is predicted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray

from unmask.data.mnist import load_mnist
from unmask.data.picture import decode_picture
from unmask.data.samples import cifar10_sample
from unmask.errors import UserError
from unmask.fool.norms import NORMS
from unmask.models.classifier import shipped
from unmask.report.figures.grid import tinted
from unmask.web.assets import PAD, PICTURE, examples, gallery
from unmask.web.charts import bars_html, duration, percent, picture_html, said_html
from unmask.web.fool_live import COMPARED, GENERATOR, Watched, spread_frames, watch
from unmask.web.models import Models
from unmask.web.pictures import as_digit, from_url, opened, png_url, require_fit, to_pillow

Pixels = NDArray[np.uint8]

_MODES = [("smallest change", "fast"), ("as the course report did it", "course-report")]
_SHOWN, _PAUSE = 16, 0.12
_SHARPEST = 20.0
_TITLES = {
    GENERATOR: "Generator",
    "ddn": "DDN",
    "fmn": "FMN",
    "cw": "Carlini and Wagner",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "square": "Square",
}


@dataclass(frozen=True, eq=False)
class Chosen:
    """An image in the form that a model takes.

    Args:
        model: the model's name.
        pixels: float32[c, h, w] in [0, 1].
    """

    model: str
    pixels: NDArray[np.float32]


def fool_tab(models: Models) -> Callable[[gr.Blocks], object]:
    """Add the tab's contents to the open blocks; return what loads its first image."""
    names = shipped()
    digits = models.classifier(names[0] if "mnist" not in names else "mnist").class_names
    gr.Markdown(
        "Give the classifier an image, choose a target class, and watch a generator network "
        "change the image until that class is predicted."
    )
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            model = gr.Dropdown(
                names, value="mnist" if "mnist" in names else names[0], label="classifier"
            )
            with gr.Tabs():
                with gr.Tab("Examples"):
                    shown = gallery([])
                    others = gr.Button("Other examples", min_width=100)
                with gr.Tab("Draw"):
                    pad = PAD.component()
                with gr.Tab("Upload"):
                    upload = PICTURE.component(webcam=False, most=models.limits.picture)
            given = gr.HTML(elem_classes="given")
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                target = gr.Dropdown(list(digits), value=digits[3], label="target class")
                mode = gr.Dropdown(_MODES, value="fast", label="generator", min_width=200)
                eps = gr.Slider(1, 100, 50, step=1, label="ε · 255", info="FGSM, PGD, Square")
            with gr.Row():
                fool = gr.Button("Fool it", variant="primary", min_width=120)
                compare = gr.Button("Compare attacks", min_width=120)
            film = gr.HTML()
            step = gr.Slider(1, 2, 1, step=1, label="step", visible=False)
            table = gr.HTML()
    offered = gr.State(())
    chosen = gr.State(None)
    watched = gr.State(None)

    def take(name: str, event: gr.EventData) -> list[Any]:
        return _taken(models, name, getattr(event, "picture", None), is_digit=True)

    def take_file(name: str, event: gr.EventData) -> list[Any]:
        return _taken(models, name, getattr(event, "picture", None), is_digit=False)

    def take_example(name: str, held: tuple[Pixels, ...], event: gr.EventData) -> list[Any]:
        try:
            pixels = held[int(getattr(event, "example", -1))]
        except (IndexError, TypeError, ValueError):
            return [None, said_html("there is no such example"), *_cleared()]
        return _given(models, Chosen(name, pixels.astype(np.float32) / np.float32(255)))

    def offer(name: str) -> list[Any]:
        return _offered(models, name)

    def change(name: str) -> list[Any]:
        return [_targets(models, name), *_first(models, name)]

    def first(name: str) -> list[Any]:
        return _first(models, name)

    def play(which: Chosen | None, name: str, way: str) -> Iterator[list[Any]]:
        yield from _play(models, which, name, way)

    def side_by_side(which: Chosen | None, name: str, size: float, way: str) -> Iterator[str]:
        yield from _compare(models, which, name, size / 255, way)

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    # The results for another image are cleared in the same answer: a separate answer could arrive
    # after the next results.
    taken = [chosen, given, film, step, table]
    pad.input(take, model, taken, **quiet)
    upload.input(take_file, model, taken, **quiet)
    shown.input(take_example, [model, offered], taken, **quiet)
    others.click(offer, model, [shown, offered], **quiet)
    model.change(change, model, [target, shown, offered, *taken], **quiet)
    fool.click(play, [chosen, target, mode], [film, step, watched], **quiet)
    compare.click(side_by_side, [chosen, target, eps, mode], table, **quiet)
    step.input(_at_step, [watched, step], film, **quiet)
    return lambda blocks: blocks.load(first, model, [shown, offered, *taken], **quiet)


def _cleared() -> list[Any]:
    return ["", gr.update(visible=False), ""]


def _targets(models: Models, name: str) -> Any:
    classes = list(models.classifier(name).class_names)
    return gr.update(choices=classes, value=classes[3 % len(classes)])


def _first(models: Models, name: str) -> list[Any]:
    """Return the examples of a classifier, and one of them as the image given."""
    html, pixels = _offered(models, name)
    if not pixels:
        hint = "<p class='hint'>Choose an image for this classifier.</p>"
        return [html, pixels, None, hint, *_cleared()]
    given = pixels[7 % len(pixels)].astype(np.float32) / np.float32(255)
    return [html, pixels, *_given(models, Chosen(name, given))]


def _offered(models: Models, name: str) -> list[Any]:
    """Return examples to click as HTML, and their pixels: one of each class that has images."""
    card = models.classifier(name).card
    images = load_mnist()[1] if card.input_shape == (1, 28, 28) else cifar10_sample()
    if images.pixels.shape[1:] != card.input_shape or images.class_names != card.class_names:
        return ["<p class='hint'>No examples ship for this classifier.</p>", ()]
    draw = np.random.default_rng()
    rows = [
        int(draw.choice(np.flatnonzero(images.labels == label)))
        for label in range(len(images.class_names))
        if (images.labels == label).any()
    ]
    urls = [
        (
            png_url(to_pillow(images.pixels[row] / np.float32(255))),
            images.class_names[images.labels[row]],
        )
        for row in rows
    ]
    return [examples(urls), tuple(images.pixels[row] for row in rows)]


def _taken(models: Models, name: str, url: object, *, is_digit: bool) -> list[Any]:
    try:
        data = from_url(url)
        card = models.classifier(name).card
        channels, height, width = card.input_shape
        if channels == 1:
            picture = opened(data, models.limits.pixels)
            pixels = as_digit(picture)
        elif is_digit:
            raise UserError(f"{name} takes no drawings", do="upload an image")
        else:
            require_fit(data, models.limits.pixels)
            pixels = decode_picture(data, size=(height, width), channels=channels)
    except UserError as error:
        return [None, said_html(str(error)), *_cleared()]
    return _given(models, Chosen(name, pixels.astype(np.float32) / np.float32(255)))


def _given(models: Models, chosen: Chosen) -> list[Any]:
    classifier = models.classifier(chosen.model)
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(chosen.pixels)[None])[0]
    chances = logits.double().softmax(0).tolist()
    best = int(logits.argmax())
    words = f"predicted: {classifier.class_names[best]}, confidence {percent(chances[best])}"
    return [chosen, picture_html(png_url(to_pillow(chosen.pixels)), words), *_cleared()]


def _play(models: Models, chosen: Chosen | None, target: str, mode: str) -> Iterator[list[Any]]:
    hidden = gr.update(visible=False)
    try:
        seen, names = _watch(models, chosen, target, GENERATOR, mode, 0.0)
    except UserError as error:
        yield [said_html(str(error)), hidden, None]
        return
    wanted = names.index(target)
    frames = seen.frames
    for number, _ in spread_frames(frames, _SHOWN):
        yield [_film(seen, names, wanted, number), hidden, gr.skip()]
        time.sleep(_PAUSE)
    last = len(frames) + 1
    slider = gr.update(
        minimum=1, maximum=last, value=last, visible=True, label="step (drag to look back)"
    )
    yield [_film(seen, names, wanted, last), slider, (seen, names, wanted)]


def _at_step(held: tuple[Watched, tuple[str, ...], int] | None, step: float) -> Any:
    if held is None:
        return gr.skip()
    return _film(*held, int(step))


def _watch(
    models: Models, chosen: Chosen | None, target: str, attack: str, mode: str, eps: float
) -> tuple[Watched, tuple[str, ...]]:
    if chosen is None:
        raise UserError("there is no image yet", do="click an example, or draw a digit")
    classifier = models.classifier(chosen.model)
    names = classifier.class_names
    if target not in names:
        raise UserError(f"{chosen.model} has no class {target}", do="choose another")
    seen = watch(classifier, chosen.pixels, names.index(target), attack=attack, mode=mode, eps=eps)
    return seen, names


def _film(seen: Watched, names: tuple[str, ...], wanted: int, number: int) -> str:
    """Return the image at a step, the change, and the confidence in each class.

    number counts the frames from 1; one more than there are stands for the final image.
    """
    final = number > len(seen.frames)
    pixels = seen.found if final else seen.frames[number - 1].pixels
    chances = seen.found_confidence if final else seen.frames[number - 1].confidence
    size = _sizes(pixels - seen.original)
    times = _magnified(seen.found - seen.original)
    before, now = (names[int(s.argmax())] for s in (seen.confidence, chances))
    caption = "found" if final else f"step {number} of {len(seen.frames)}"
    pictures = "".join(
        (
            picture_html(png_url(to_pillow(seen.original)), f"original: {before}"),
            picture_html(
                png_url(to_pillow(pixels)),
                f"{caption}: {now}",
                download=f"predicted-as-{now}.png" if final else "",
            ),
            picture_html(
                png_url(to_pillow(tinted(pixels - seen.original, times))), f"change × {times}"
            ),
        )
    )
    bars = bars_html(names, chances.tolist(), seen.confidence.tolist(), wanted)
    line = f"L2 {size[0]:.3f} · Linf {255 * size[1]:.1f}/255"
    if final:
        good = bool(seen.outcome.reached_saved[0])
        verdict = said_html(
            f"Predicted: {now}, confidence {percent(float(chances.max()))}, on the saved image. "
            f"{seen.gradients} gradients, {duration(seen.seconds)}."
            if good
            else f"No change was found that is predicted as {names[wanted]}.",
            "good" if good else "bad",
        )
    else:
        verdict = ""
    return (
        f"<div class='film'><div class='pictures'>{pictures}</div>{bars}</div>"
        f"<p class='status'>{line}</p>{verdict}"
        "<p class='hint'>Bars: confidence in each class; marks: on the original.</p>"
    )


def _compare(
    models: Models, chosen: Chosen | None, target: str, eps: float, mode: str
) -> Iterator[str]:
    rows: list[str] = []
    for attack in COMPARED:
        waiting = f"<p class='hint'>{_TITLES[attack]} …</p>"
        yield _table(rows) + waiting if rows else waiting
        try:
            seen, names = _watch(models, chosen, target, attack, mode, eps)
        except UserError as error:
            yield said_html(str(error))
            return
        rows.append(_row(seen, names))
    yield _table(rows)


def _row(seen: Watched, names: tuple[str, ...]) -> str:
    change = seen.found - seen.original
    size, times = _sizes(change), _magnified(change)
    reached = bool(seen.outcome.reached_saved[0])
    sign = "<span class='chip good'>✓</span>" if reached else "<span class='chip bad'>✗</span>"
    predicted = names[int(seen.found_confidence.argmax())]
    confidence = percent(float(seen.found_confidence.max()))
    url = png_url(to_pillow(seen.found))
    seeks = "smallest L2" if seen.threat.eps is None else f"Linf ≤ {255 * seen.threat.eps:.0f}/255"
    return (
        f"<tr><th>{_TITLES[seen.attack]}<br><small>{seeks}</small></th>"
        f"<td><a href='{url}' download='{seen.attack}.png' title='save PNG'>"
        f"<img class='pixels' src='{url}' alt='the changed image'></a></td>"
        f"<td><img class='pixels' src='{png_url(to_pillow(tinted(change, times)))}' "
        f"alt='the change'><br><small>× {times}</small></td>"
        f"<td>{sign} {escape(predicted)}<br><small>confidence {confidence}</small>"
        f"</td><td class='number'>{size[0]:.3f}</td>"
        f"<td class='number'>{255 * size[1]:.1f}</td>"
        f"<td class='number'>{seen.gradients}</td>"
        f"<td class='number'>{escape(duration(seen.seconds))}</td></tr>"
    )


def _table(rows: list[str]) -> str:
    return (
        "<div class='scroll'><table><thead><tr><th>attack</th><th>image</th><th>change</th>"
        "<th>predicted</th><th class='number'>L2</th><th class='number'>Linf · 255</th>"
        "<th class='number'>gradients</th><th class='number'>time</th></tr></thead><tbody>"
        f"{''.join(rows)}</tbody></table></div>"
    )


def _sizes(change: NDArray[np.float32]) -> tuple[float, float]:
    whole = torch.from_numpy(change)[None].double()
    return float(NORMS["l2"].size(whole)[0]), float(NORMS["linf"].size(whole)[0])


def _magnified(change: NDArray[np.float32]) -> int:
    largest = float(np.abs(change).max())
    return max(1, int(min(_SHARPEST, 1 / largest))) if largest > 0 else 1
