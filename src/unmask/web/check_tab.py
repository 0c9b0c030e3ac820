"""The Check tab: all questions about one model, and the verdicts as they are found."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import PurePath
from typing import Any

import gradio as gr

from unmask.check.result import Check, Part
from unmask.errors import UserError
from unmask.report.model_check import check_page
from unmask.verdict import worst_first
from unmask.web.assets import FILES
from unmask.web.charts import duration, said_html, verdict_cards
from unmask.web.check_live import (
    ARCHIVE,
    CARD,
    MODEL_SUFFIXES,
    SAMPLES,
    SHORTEST,
    Progress,
    checkable,
    opened_uploads,
    run_check,
    samples_for,
)
from unmask.web.models import Models
from unmask.web.pictures import content_of

_QUESTIONS = {
    "preflight": "the input pipeline",
    "accuracy": "accuracy and calibration",
    "data": "the data",
    "flow": "the gradients",
    "shift": "corrupted images",
    "audit": "adversarial attacks",
    "certificate": "certified robustness",
}
_STATUS = {"done": ("good", "✓"), "skipped": ("none", "–"), "failed": ("bad", "✗")}
_SHOWN = 12
_EMPTY = (
    "<p class='hint'>Press Check to see what is wrong with the model above, within the seconds "
    "given.</p>"
)
_Uploads = dict[str, tuple[str, bytes]]

# Which tab is open is read when Check is pressed: an event of the tab might reach the server later.
_WITH_TAB = """(model, sample, mine, ...rest) => [
    model, sample, !!document.querySelector("[data-tab-id=own][aria-selected=true]"), ...rest
]"""


def check_tab(models: Models) -> None:
    """Add the tab's contents to the open blocks."""
    gr.Markdown(
        "Will it train, can it be fooled, does it hold in the wild? Choose a model and images; "
        "each verdict appears when it is found."
    )
    names = checkable()
    first = "mnist" if "mnist" in names else names[0]
    samples = samples_for(first)
    longest = max(models.limits.seconds, SHORTEST)
    with gr.Tabs():
        with gr.Tab("Shipped model", id="shipped"), gr.Row():
            model = gr.Dropdown(names, value=first, label="model", min_width=200)
            sample = gr.Dropdown(
                [(title, name) for name, title in samples.items()],
                value=next(iter(samples)),
                label="images",
                min_width=240,
            )
        with gr.Tab("Your own", id="own"):
            files = FILES.component(
                most=models.limits.picture,
                suffixes=[*MODEL_SUFFIXES, CARD, ARCHIVE],
                models=list(MODEL_SUFFIXES),
            )
            listed = gr.HTML(_listed({}))
    with gr.Row(elem_classes="stacked"):
        seconds = gr.Slider(
            SHORTEST, longest, min(20.0, longest), step=1, label="seconds", min_width=260
        )
        check = gr.Button("Check", variant="primary", min_width=120)
        stop = gr.Button("Stop", min_width=120)
    status = gr.HTML(_EMPTY)
    verdicts = gr.HTML()
    parts = gr.HTML()
    uploads = gr.State({})
    mine = gr.Checkbox(False, visible="hidden")

    def take(event: gr.EventData) -> list[Any]:
        try:
            held = _files(getattr(event, "files", None))
        except UserError as error:
            return [{}, said_html(str(error))]
        return [held, _listed(held)]

    def run(
        name: str, images: str, own_files: bool, held: _Uploads, allowed: float
    ) -> Iterator[list[Any]]:
        yield from _run(name, images, held if own_files else None, allowed)

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    model.change(_samples, model, sample, **quiet)
    files.input(take, None, [uploads, listed], **quiet)
    running = check.click(
        run,
        [model, sample, mine, uploads, seconds],
        [status, verdicts, parts],
        js=_WITH_TAB,
        **quiet,
    )
    stop.click(None, cancels=[running], api_visibility="private")


def _files(sent: object) -> _Uploads:
    """Return the files that the page sent, by suffix; raise UserError for any other kind."""
    held: _Uploads = {}
    for one in sent if isinstance(sent, list) else []:
        name = str(one.get("name", "") if isinstance(one, dict) else "")
        suffix = PurePath(name).suffix.lower()
        if suffix not in (*MODEL_SUFFIXES, CARD, ARCHIVE):
            raise UserError("that is neither a model nor a zip of images", got=repr(name[:60]))
        held[suffix] = (PurePath(name).name[-60:], content_of(one.get("content")))
    return held


def _listed(held: _Uploads) -> str:
    if not held:
        return (
            "<p class='hint'>A safetensors file comes with its .json card. The zip has a folder of "
            "images for each class. Files stay in memory until you leave the page.</p>"
        )
    rows = "".join(
        f"<li>{escape(name)} <small>{len(content) / 1e6:.1f} MB</small></li>"
        for name, content in held.values()
    )
    return f"<ul class='files'>{rows}</ul>"


def _samples(model: str) -> Any:
    samples = samples_for(model)
    return gr.update(
        choices=[(title, name) for name, title in samples.items()], value=next(iter(samples))
    )


def _run(name: str, sample: str, uploads: _Uploads | None, seconds: float) -> Iterator[list[Any]]:
    """Yield the status, the verdicts and the table of questions as a check goes on."""
    try:
        yield [said_html("reading the model and the images …", "mixed"), "", ""]
        if uploads is None:
            if sample not in SAMPLES:
                raise UserError("there are no images yet", do="choose a sample")
            progress = run_check(name, SAMPLES[sample].load(), seconds)
        else:
            progress = run_check(*opened_uploads(uploads), seconds)
        for state in progress:
            yield _shown(state)
    except UserError as error:
        yield [said_html(str(error)), gr.skip(), gr.skip()]


def _shown(state: Progress) -> list[Any]:
    found = worst_first(v for part in state.parts for v in part.verdicts)
    cards = verdict_cards(found[:_SHOWN])
    if len(found) > _SHOWN:
        cards += f"<p class='hint'>{len(found) - _SHOWN} more are in the report.</p>"
    if state.check is None:
        now = _QUESTIONS.get(state.question, state.question)
        return [said_html(f"checking {now} …", "mixed"), cards, _table(state.parts)]
    return [_summary(state.check), cards, _table(state.parts)]


def _summary(check: Check) -> str:
    count = len(check.verdicts)
    errors = sum(v.severity == "error" for v in check.verdicts)
    kind = "bad" if errors else "mixed" if count else "good"
    words = (
        f"{count} verdict{'s' * (count != 1)}, {errors} of them error{'s' * (errors != 1)}"
        if count
        else "nothing was found wrong"
    )
    page = base64.b64encode(check_page(check).encode()).decode()
    return (
        said_html(f"{check.model} on {check.data}: {words}, in {duration(check.seconds)}.", kind)
        + f"<p><a class='save' href='data:text/html;base64,{page}' download='report.html'>"
        "Download the report</a></p>"
    )


def _table(parts: tuple[Part, ...]) -> str:
    if not parts:
        return ""
    rows = "".join(
        f"<tr><th>{escape(_QUESTIONS.get(p.name, p.name))}</th>"
        f"<td><span class='chip {_STATUS[p.status][0]}'>{_STATUS[p.status][1]}</span> "
        f"{escape(_outcome(p))}</td><td class='number'>{escape(duration(p.seconds))}</td></tr>"
        for p in parts
    )
    return (
        "<div class='scroll'><table><thead><tr><th>question</th><th>answer</th>"
        f"<th class='number'>time</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _outcome(part: Part) -> str:
    count = len(part.verdicts)
    words: list[str] = (
        [f"{count} verdict{'s' * (count != 1)}"] if part.status == "done" else [part.status]
    )
    if "accuracy" in part.figures:
        words.append(f"accuracy {100 * part.figures['accuracy']:.1f} %")
    return "; ".join([*words, part.reason] if part.reason else words)
