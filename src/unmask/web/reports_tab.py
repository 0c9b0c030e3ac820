"""The Reports tab: the reports already made on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from unmask.web.charts import said_html
from unmask.web.reports import find_reports


def reports_tab(folders: Sequence[Path]) -> Callable[[gr.Blocks], object]:
    """Add the tab's contents to the open blocks; return what loads its first list."""
    gr.Markdown("Read what unmask check and the other commands have written on this machine.")
    with gr.Row():
        choice = gr.Dropdown([], label="report, the newest first", scale=4, min_width=280)
        refresh = gr.Button("Refresh", scale=1, min_width=120)
    frame = gr.HTML()
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def listed() -> list[Any]:
        names = list(find_reports(folders))
        if not names:
            where = ", ".join(map(str, folders))
            line = f"no report in {where}; unmask check writes one"
            return [gr.update(choices=[], value=None), said_html(line, "mixed")]
        return [gr.update(choices=names, value=names[0]), _framed(names[0])]

    refresh.click(listed, None, [choice, frame], **quiet)
    choice.input(_framed, choice, frame, **quiet)
    return lambda blocks: blocks.load(listed, None, [choice, frame], **quiet)


def _framed(name: str | None) -> str:
    if not name:
        return ""
    address = f"/reports/page?{urlencode({'name': name})}"
    return (
        f"<iframe class='report' sandbox='' src='{escape(address)}' title='{escape(name)}'>"
        "</iframe>"
        f"<p class='hint'><a href='{escape(address)}' target='_blank' rel='noopener'>"
        "open it in a new tab</a></p>"
    )
