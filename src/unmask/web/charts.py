"""Small drawings as SVG or HTML, fast enough to redraw several times a second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from unmask.report.verdicts import SIGNS
from unmask.verdict import Verdict

Curve = tuple[Sequence[float], Sequence[float]]

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 34, 36
_TICKS = 4


def curves_svg(
    title: str,
    curves: Sequence[Curve],
    earlier: Sequence[Curve],
    *,
    colour: str,
    most: tuple[float, float],
    guess: float,
    fraction: bool,
) -> str:
    """Return one line for each net, epochs against values, over the earlier setting's in grey.

    Args:
        title: of the chart.
        curves: epochs and values of each net.
        earlier: those of the setting before.
        colour: a CSS colour.
        most: the ends of both axes, which start at 0.
        guess: the value of a net that guesses.
        fraction: whether values are fractions, labelled in per cent.
    """
    wide, high = most
    inner, deep = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + inner * value / wide

    def y(value: float) -> float:
        return _TOP + deep * (1 - min(max(value / high, 0.0), 1.0))

    parts = [f'<text x="{_LEFT}" y="18" class="title">{escape(title)}</text>']
    for k in range(_TICKS + 1):
        value = high * k / _TICKS
        label = f"{100 * value:.0f} %" if fraction else f"{value:.3g}"
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}h{inner}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" class="y">{label}</text>')
    step = max(1, round(wide / 5))
    parts += [
        f'<text x="{x(epoch):.1f}" y="{_HEIGHT - 20}" class="x">{epoch}</text>'
        for epoch in range(0, int(wide) + 1, step)
    ]
    parts.append(f'<text x="{_LEFT + inner / 2}" y="{_HEIGHT - 4}" class="x">epochs</text>')
    parts.append(f'<path class="guess" d="M{_LEFT} {y(guess):.1f}h{inner}"/>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{y(guess) + 13:.1f}" class="y">guessing</text>')
    for drawn, kind in ((earlier, "earlier"), (curves, "now")):
        for xs, ys in drawn:
            points = [f"{x(a):.1f} {y(b):.1f}" for a, b in zip(xs, ys, strict=True)]
            if points:
                ink = f' style="stroke:{colour}"' if kind == "now" else ""
                parts.append(f'<path class="{kind}"{ink} d="M{"L".join(points)}"/>')
            if points and kind == "now":
                at_x, at_y = points[-1].split()
                parts.append(f'<circle cx="{at_x}" cy="{at_y}" r="3" style="fill:{colour}"/>')
    return (
        f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def bars_html(
    names: Sequence[str], now: Sequence[float], before: Sequence[float], wanted: int | None
) -> str:
    """Return one bar for each class: its confidence, with a mark of the confidence before.

    Args:
        names: of the classes.
        now: their probabilities, 0 to 1.
        before: the probabilities before the change.
        wanted: the target class, drawn in another colour; None for no target.
    """
    rows = []
    predicted = max(range(len(now)), key=now.__getitem__)
    for k, name in enumerate(names):
        kind = "wanted" if k == wanted else ""
        label = f"<b>{escape(name)}</b>" if k == predicted else escape(name)
        rows.append(
            f'<div class="bar {kind}"><span>{label}</span><i>'
            f'<u style="width:{100 * now[k]:.1f}%"></u><s style="left:{100 * before[k]:.1f}%"></s>'
            f"</i><span>{percent(now[k])}</span></div>"
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def percent(probability: float) -> str:
    """Return a probability in per cent, never rounded up to 100 % nor down to 0 %."""
    if 0 < probability < 0.005:
        return "< 1 %"
    return f"{100 * probability:.0f} %" if probability < 0.995 else "> 99 %"


def duration(seconds: float) -> str:
    """Return a time in seconds, never rounded down to 0."""
    if seconds < 0.05:
        return "< 0.1 s"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def picture_html(url: str, caption: str, *, download: str = "") -> str:
    """Return a small image with square pixels, a caption and a link to save it.

    Args:
        url: the image's data URL.
        caption: plain text.
        download: the name of the file that the link saves, "" for no link.
    """
    link = f'<a href="{url}" download="{escape(download)}">save PNG</a>' if download else ""
    return (
        f'<figure class="small"><img src="{url}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)} {link}</figcaption></figure>"
    )


def verdict_cards(verdicts: Iterable[Verdict]) -> str:
    """Return verdicts as cards, in their order."""
    cards = []
    for verdict in verdicts:
        kind, sign = SIGNS[verdict.severity]
        where = f" <small>{escape(verdict.subject)}</small>" if verdict.subject else ""
        lines = "".join(
            f"<dt>{name}</dt><dd>{escape(text)}</dd>"
            for name, text in (
                ("seen", verdict.message),
                ("cause", verdict.cause),
                ("fix", verdict.fix),
            )
            if text
        )
        cards.append(
            f"<div class='card {kind}'><b>{sign} {escape(verdict.title)}</b>{where}"
            f"<dl>{lines}</dl></div>"
        )
    return "".join(cards)


def said_html(line: str, kind: str = "bad") -> str:
    """Return one line of plain text as a note.

    Args:
        line: plain text.
        kind: "good", "mixed" or "bad".
    """
    return f'<p class="said {kind}">{escape(line)}</p>'
