"""The Flow tab: nets train live, and the flow check judges them."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from unmask.errors import UserError
from unmask.flow.check import FlowCheck
from unmask.flow.profile import NoPrediction, Prediction
from unmask.models.activations import ACTIVATIONS
from unmask.report.figures.check import BAND, profile_figure
from unmask.report.figures.style import to_svg
from unmask.report.html import inline_svg
from unmask.sweep.spec import INITS, NetSpec
from unmask.web.charts import Curve, curves_svg, duration, said_html, verdict_cards
from unmask.web.flow_advice import Advice, advise, judge
from unmask.web.flow_live import (
    MAX_DEPTH,
    MAX_EPOCHS,
    MAX_NETS,
    MAX_WIDTH,
    LiveRun,
    profile_at_start,
    train_live,
)

_GUESSED_LOSS, _GUESSED_FRACTION = 2.3026, 0.1
_INIT_TITLES = {
    "glorot_uniform": "Glorot, uniform",
    "glorot_normal": "Glorot, normal",
    "he_uniform": "He, uniform",
    "he_normal": "He, normal",
    "lecun_uniform": "LeCun, uniform",
    "lecun_normal": "LeCun, normal",
    "orthogonal": "orthogonal",
    "mean_field": "mean field",
}
_EMPTY = "<p class='hint'>Choose a setting and press Train.</p>"


def flow_tab() -> None:
    """Add the tab's contents to the open blocks."""
    gr.Markdown(
        "Choose a network and watch it learn to read 6,000 digits of MNIST by plain gradient "
        "descent. Each curve is one net with its own seed; depth is the number of hidden layers, "
        "width their units."
    )
    with gr.Row():
        depth = gr.Slider(1, MAX_DEPTH, 20, step=1, label="depth")
        width = gr.Slider(8, MAX_WIDTH, 64, step=8, label="width")
        activation = gr.Dropdown(
            [(a.title, a.name) for a in ACTIVATIONS.values()],
            value="sigmoid",
            label="activation",
            min_width=200,
        )
        init = gr.Dropdown(
            [(_INIT_TITLES[name], name) for name in INITS],
            value="glorot_uniform",
            label="initialisation",
            min_width=200,
        )
    with gr.Row():
        rate = gr.Number(0.05, label="learning rate", minimum=0)
        epochs = gr.Slider(1, MAX_EPOCHS, 6, step=1, label="epochs")
        nets = gr.Slider(1, MAX_NETS, 3, step=1, label="nets")
        sigma_w2 = gr.Number(1.76, label="sigma_w2: weights", visible=False, minimum=0)
        sigma_b2 = gr.Number(0.05, label="sigma_b2: biases", visible=False, minimum=0)
    with gr.Row():
        train = gr.Button("Train", variant="primary", min_width=120)
        stop = gr.Button("Stop", min_width=120)
    status = gr.HTML(_EMPTY)
    curves = gr.HTML()
    verdicts = gr.HTML()
    apply = gr.Button("Apply the fix", variant="primary", visible=False)
    profile = gr.HTML()
    earlier = gr.State(None)
    advice = gr.State(None)

    settings = [depth, width, activation, init, rate, epochs, nets, sigma_w2, sigma_b2]
    shown = [status, curves, verdicts, profile, apply, earlier, advice]
    init.change(_sigmas, init, [sigma_w2, sigma_b2], queue=False, api_visibility="private")
    running = train.click(
        _run, [*settings, earlier], shown, show_progress="hidden", api_visibility="private"
    )
    mending = apply.click(
        _applied, [advice], [*settings, apply], queue=False, api_visibility="private"
    ).then(_run, [*settings, earlier], shown, show_progress="hidden", api_visibility="private")
    stop.click(None, cancels=[running, mending], api_visibility="private")


def _sigmas(init: str) -> list[Any]:
    return [gr.update(visible=init == "mean_field")] * 2


def _applied(advice: Advice | None) -> list[Any]:
    """Return the settings that the advice changes, for the fields of the page."""
    if advice is None:
        return [gr.skip()] * 10
    spec, field = advice.spec, init_field(advice.spec)
    return [
        gr.skip(),
        gr.skip(),
        spec.activation,
        spec.init,
        spec.learning_rate,
        gr.skip(),
        gr.skip(),
        *field,
        gr.update(visible=False),
    ]


def init_field(spec: NetSpec) -> list[Any]:
    """Return the updates of the two variances: shown where the initialisation takes them."""
    if spec.init != "mean_field":
        return [gr.update(visible=False)] * 2
    return [gr.update(value=v, visible=True) for v in (spec.sigma_w2, spec.sigma_b2)]


def _run(
    depth: float,
    width: float,
    activation: str,
    init: str,
    rate: float | None,
    epochs: float,
    nets: float,
    sigma_w2: float | None,
    sigma_b2: float | None,
    earlier: LiveRun | None,
) -> Iterator[list[Any]]:
    """Yield what the page shows while the nets train, and then the verdicts of the check."""
    skip, hidden = gr.skip(), gr.update(visible=False)
    try:
        field = init == "mean_field"
        spec = NetSpec(
            depth=int(depth),
            width=int(width),
            activation=activation,
            init=init,
            sigma_w2=sigma_w2 if field else None,
            sigma_b2=sigma_b2 if field else None,
            learning_rate=rate or 0.0,
            epochs=int(epochs),
        )
        run = None
        for run in train_live(spec, int(nets)):
            yield [_status(run), _curves(run, earlier), "", "", hidden, skip, None]
        assert run is not None
        yield [_status(run), skip, said_html("probing a few steps …", "mixed"), *[skip] * 4]
        check = judge(spec)
        advice = advise(spec, check)
        button = (
            hidden
            if advice is None
            else gr.update(value=f"Apply the fix: {advice.words}", visible=True)
        )
        cards = verdicts_html(check)
        yield [skip, skip, cards, skip, button, run, advice]
        # All of it again: a slow browser may show only the last update.
        profile = _profile(check, profile_at_start(spec))
        yield [_status(run), _curves(run, earlier), cards, profile, button, run, advice]
    except UserError as error:
        yield [said_html(str(error)), *[skip] * 3, hidden, skip, skip]


def _status(run: LiveRun) -> str:
    ended = [c for c in run.curves if c.diverged or c.test is not None]
    tested = [c.test for c in run.curves if c.test is not None]
    diverged = sum(c.diverged for c in run.curves)
    words = [f"{len(ended)} of {len(run.curves)} nets trained, {duration(run.seconds)}"]
    if tested:
        words.append(f"test accuracy {_range(tested)}")
    if diverged:
        words.append(f"{diverged} diverged")
    if run.cut_short:
        words.append("cut short by the page's time limit")
    return f"<p class='status'>{escape('; '.join(words))}</p>"


def _range(fractions: list[float]) -> str:
    low, high = 100 * min(fractions), 100 * max(fractions)
    return f"{low:.1f} %" if len(fractions) == 1 else f"{low:.1f} to {high:.1f} %"


def _curves(run: LiveRun, earlier: LiveRun | None) -> str:
    before = earlier.curves if earlier else []
    epochs = max(run.spec.epochs, earlier.spec.epochs if earlier else 0)
    colour = f"var(--{run.spec.activation})"

    def chart(title: str, now: list[Curve], then: list[Curve], guess: float, most: float) -> str:
        return curves_svg(
            title,
            now,
            then,
            colour=colour,
            most=(epochs, most),
            guess=guess,
            fraction=guess == _GUESSED_FRACTION,
        )

    accuracy = chart(
        "Accuracy on training images",
        [(c.epochs, c.accuracies) for c in run.curves],
        [(c.epochs, c.accuracies) for c in before],
        _GUESSED_FRACTION,
        1.0,
    )
    loss = chart(
        "Loss on training images",
        [(c.epochs, c.losses) for c in run.curves],
        [(c.epochs, c.losses) for c in before],
        _GUESSED_LOSS,
        3.0,
    )
    note = "<p class='hint'>In grey: the setting before.</p>" if before else ""
    return f"<div class='charts'>{accuracy}{loss}</div>{note}"


def verdicts_html(check: FlowCheck) -> str:
    """Return the verdicts of a check as cards, worst first."""
    if not check.verdicts:
        return said_html("Nothing blocks the gradient.", "good")
    return verdict_cards(check.verdicts)


def _profile(check: FlowCheck, found: Prediction | NoPrediction) -> str:
    if isinstance(found, NoPrediction):
        return said_html(f"Theory predicts nothing here: {found.reason}.", "mixed")
    wide = inline_svg(to_svg(profile_figure(check, found), "profile"), "wide")
    narrow = to_svg(profile_figure(check, found, narrow=True), "profile-narrow")
    return (
        "<h3>Gradient of every layer before training, over what theory predicts</h3>"
        f"<p class='hint'>{found.within(BAND)} of {len(found.layers)} layers lie within "
        f"{BAND:g} standard deviations of the mean over wide networks with these weights. A layer "
        "outside the band differs from theory; only a verdict makes it a fault.</p>"
        f"{wide}{inline_svg(narrow, 'narrow')}"
    )
