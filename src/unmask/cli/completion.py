"""The verb completion: a script that completes unmask's verbs and options in a shell."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="bash, zsh or fish")], /
) -> None:
    """Print a script after which the shell completes verbs, options and files with the Tab key.

    The script is for the shell to read at its start; nothing is installed or changed.
    """
    from unmask.cli.verbs import app

    print(app().generate_completion(shell=shell))
