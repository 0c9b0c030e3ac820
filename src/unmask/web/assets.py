"""The page's own components and style: they send images as text, never as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
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
    """A component that sends images or files: markup, and a script that triggers "input" with them.

    An image comes as {picture: URL}, files as {files: [{name, content: URL}]}.

    Args:
        name: of the static files, without suffix.
    """

    name: str

    def component(self, **settings: Any) -> gr.HTML:
        """Return the component.

        Args:
            settings: what its script finds in props.
        """
        return gr.HTML(
            "",
            html_template=read(f"{self.name}.html"),
            js_on_load=read(f"{self.name}.js"),
            **settings,
        )


PAD = Source("pad")
PICTURE = Source("picture")
FILES = Source("files")


def examples(images: Sequence[tuple[str, str]]) -> str:
    """Return images to click as HTML.

    Args:
        images: for each a data URL and a caption in plain text.
    """
    return "".join(
        f"<button type='button' data-example='{k}' title='{escape(caption)}'>"
        f"<img src='{url}' alt='{escape(caption)}'></button>"
        for k, (url, caption) in enumerate(images)
    )


def gallery(images: Sequence[tuple[str, str]]) -> gr.HTML:
    """Return a component of images to click, which triggers "input" with {example: number}."""
    return gr.HTML(
        examples(images), js_on_load=read("examples.js"), elem_classes="examples", padding=False
    )


def style() -> str:
    """Return the page's style sheet, with the colours of the activations in light and dark."""
    light = "".join(f"--{name}: {style.light};" for name, style in STYLES.items())
    dark = "".join(f"--{name}: {style.dark};" for name, style in STYLES.items())
    return f":root {{{light}}}\n.dark {{{dark}}}\n{read('page.css')}"
