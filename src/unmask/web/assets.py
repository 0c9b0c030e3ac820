"""The page's own components and style: they send images as text, so that none becomes a file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import gradio as gr

from unmask.report.figures.style import STYLES

_FOLDER = resources.files("unmask.web") / "static"


def read(name: str) -> str:
    """Return the text of one of the package's static files."""
    return (_FOLDER / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Source:
    """Where images come from: markup and a script, which triggers "input" with {picture: URL}."""

    name: str

    def component(self, **settings: Any) -> gr.HTML:
        """Return the component; settings are what its script finds in props."""
        return gr.HTML(
            "",
            html_template=read(f"{self.name}.html"),
            js_on_load=read(f"{self.name}.js"),
            **settings,
        )


PAD = Source("pad")
PICTURE = Source("picture")


def style() -> str:
    """Return the page's style sheet, with the colours of the activations in light and dark."""
    light = "".join(f"--{name}: {style.light};" for name, style in STYLES.items())
    dark = "".join(f"--{name}: {style.dark};" for name, style in STYLES.items())
    return f":root {{{light}}}\n.dark {{{dark}}}\n{read('page.css')}"
