"""The page: five tabs, served entirely by this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from unmask import __version__
from unmask.runtime import cpu_threads
from unmask.web.check_tab import check_tab
from unmask.web.flow_tab import flow_tab
from unmask.web.fool_tab import fool_tab
from unmask.web.mask_tab import mask_tab
from unmask.web.models import Models
from unmask.web.reports_tab import reports_tab

TITLE = "Unmask"
_SECONDS, _WAITING = 3600, 64


def page(models: Models, reports: Sequence[Path]) -> gr.Blocks:
    """Return the page's blocks.

    Args:
        models: the models behind the tabs.
        reports: the folders whose reports are shown.
    """
    # Gradio deletes its own files after an hour; images never become files.
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_SECONDS, _SECONDS))
    with blocks:
        gr.HTML(
            "<header><h1>Unmask</h1><p>Find out what is wrong with an image classifier before its "
            f"users do. <small>Version {__version__}</small></p></header>"
        )
        with gr.Tabs():
            with gr.Tab("Check", id="check"):
                check_tab(models)
            with gr.Tab("Flow", id="flow"):
                flow_tab()
            with gr.Tab("Fool", id="fool"):
                first_picture = fool_tab(models)
            with gr.Tab("Mask", id="mask"):
                mask_tab(models)
            with gr.Tab("Reports", id="reports"):
                first_list = reports_tab(reports)
        first_picture(blocks)
        first_list(blocks)
    blocks.queue(default_concurrency_limit=cpu_threads(), max_size=_WAITING)
    return blocks
