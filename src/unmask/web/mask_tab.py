"""The Mask tab: the faces in an image, and whether each wears a mask."""

from __future__ import annotations

import json
from collections import Counter
from html import escape
from typing import Any

import gradio as gr

from unmask.coursework.portraits import WORN, shown
from unmask.data.samples import PORTRAITS
from unmask.errors import UserError
from unmask.mask.runtime.classes import colour_of, plain_words
from unmask.mask.runtime.detections import NOT_JUDGED_NAME, Detections
from unmask.mask.runtime.drawing import draw, hide
from unmask.web.assets import PICTURE, gallery
from unmask.web.charts import percent, said_html
from unmask.web.models import Models
from unmask.web.pictures import from_url, jpeg_bytes, jpeg_url, opened, thumbnail

# How each portrait of the examples is shown.
_WORN = (WORN[0], WORN[1], WORN[2], WORN[1])


def mask_tab(models: Models) -> None:
    """Add the tab's contents to the open blocks."""
    gr.Markdown(
        "Who wears a mask? Click an example, or give an image of your own: it stays on this "
        "machine and is not kept."
    )
    if models.detector is None:
        gr.HTML(said_html(models.no_detector, "mixed"))
        return
    examples = [shown(portrait, worn) for portrait, worn in zip(PORTRAITS, _WORN, strict=True)]
    captions = [f"{p.person}, {worn}" for p, worn in zip(PORTRAITS, _WORN, strict=True)]
    chosen = gallery([(jpeg_url(thumbnail(i)), c) for i, c in zip(examples, captions, strict=True)])
    upload = PICTURE.component(webcam=True, most=models.limits.picture)
    with gr.Row(elem_classes="stacked"):
        threshold = gr.Slider(
            0.05,
            0.95,
            round(models.detector.facts.calibration.face, 2),
            step=0.05,
            label="least score of a face",
            min_width=260,
        )
        smallest = gr.Slider(4, 100, 10, step=1, label="smallest face (pixels)", min_width=260)
        blur = gr.Checkbox(False, label="hide the faces", min_width=220)
    seen = gr.HTML()
    with gr.Accordion("JSON", open=False):
        code = gr.Code(language="json", show_label=False, interactive=False)
    held = gr.State(None)

    def detect(threshold: float, least: float, hidden: bool, event: gr.EventData) -> list[Any]:
        try:
            data = from_url(getattr(event, "picture", None))
        except UserError as error:
            return [said_html(str(error)), "", None]
        return [*_detected(models, data, threshold, least, hidden), data]

    def detect_example(
        threshold: float, least: float, hidden: bool, event: gr.EventData
    ) -> list[Any]:
        try:
            data = jpeg_bytes(examples[int(getattr(event, "example", -1))])
        except (IndexError, TypeError, ValueError):
            return [said_html("there is no such example"), "", None]
        return [*_detected(models, data, threshold, least, hidden), data]

    def again(data: bytes | None, threshold: float, least: float, hidden: bool) -> list[Any]:
        if data is None:
            return [gr.skip(), gr.skip()]
        return _detected(models, data, threshold, least, hidden)

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    settings = [threshold, smallest, blur]
    upload.input(detect, settings, [seen, code, held], **quiet)
    chosen.input(detect_example, settings, [seen, code, held], **quiet)
    gr.on(
        [threshold.release, smallest.release, blur.input],
        again,
        [held, *settings],
        [seen, code],
        **quiet,
    )


def _detected(
    models: Models, data: bytes, threshold: float, smallest: float, hidden: bool
) -> list[Any]:
    """Return the drawn image with its table, and the JSON."""
    assert models.detector is not None
    try:
        picture = opened(data, models.limits.pixels)
        found = models.detector.detect(picture, threshold=threshold, smallest=smallest)
    except UserError as error:
        return [said_html(str(error)), ""]
    if hidden:
        hide(picture, found.boxes)
    url = jpeg_url(draw(picture, found))
    shown = (
        f"<figure class='found'><img src='{url}' alt='{escape(_summary(found))}'>"
        f"<figcaption>{escape(_summary(found))} "
        f"<a href='{url}' download='faces.jpg'>save the image</a></figcaption></figure>"
    )
    return [shown + faces_html(found), json.dumps(found.as_dict(), indent=1)]


def _summary(found: Detections) -> str:
    if not len(found):
        return "No face was found."
    counts = Counter(found.names())
    each = ", ".join(f"{n} {plain_words(name)}" for name, n in counts.most_common())
    return f"{len(found)} face{'s' * (len(found) > 1)}: {each}."


def faces_html(found: Detections) -> str:
    """Return the faces as a table, by score; nothing where there are none."""
    rows = []
    for i, name in enumerate(found.names()):
        red, green, blue = colour_of(name, found.class_names)
        judged = name != NOT_JUDGED_NAME
        confidence = percent(float(found.probabilities[i, found.labels[i]])) if judged else "–"
        left, top, right, bottom = (round(float(v)) for v in found.boxes[i])
        rows.append(
            f"<tr><td class='number'>{i + 1}</td>"
            f"<td><span class='key' style='background:rgb({red},{green},{blue})'></span>"
            f"{escape(plain_words(name))}</td><td class='number'>{confidence}</td>"
            f"<td class='number'>{percent(float(found.scores[i]))}</td>"
            f"<td class='number'>{left}, {top}</td>"
            f"<td class='number'>{right - left} × {bottom - top}</td></tr>"
        )
    if not rows:
        return ""
    return (
        "<div class='scroll'><table><thead><tr><th></th><th>wears</th>"
        "<th class='number'>confidence</th><th class='number'>score of the face</th>"
        "<th class='number'>left, top</th><th class='number'>size</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
