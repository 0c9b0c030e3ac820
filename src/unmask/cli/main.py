"""The command `unmask`: its verbs, each loaded when it is called, and its exit statuses."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from unmask import __version__
from unmask.errors import UserError, unknown
from unmask.text import printable, told

DONE, USER_MISTAKE, INTERRUPTED = 0, 2, 130

app = App(
    name="unmask",
    help="Find out what is wrong with an image classifier before its users do.",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(
    "unmask.cli.check:check",
    name="check",
    help="All questions at once, within a time: one list of verdicts, one exit status.",
)
app.command(
    "unmask.cli.groups:flow",
    name="flow",
    help="Will it train? Gradients by layer, depth and activation.",
)
app.command(
    "unmask.cli.groups:fool",
    name="fool",
    help="Can it be fooled? The smallest change after which another class is predicted.",
)
app.command(
    "unmask.cli.shift:shift",
    name="shift",
    help="Does it hold in the wild? Blur, noise, weather, another camera, another runtime.",
)
app.command(
    "unmask.cli.groups:mask",
    name="mask",
    help="Does it hold in the wild? Faces with and without masks.",
)
app.command(
    "unmask.cli.data:app",
    name="data",
    help="Fetch the face mask set, MNIST or CIFAR-10; audit any set for leaks and wrong labels.",
)
app.command(
    "unmask.cli.train:train",
    name="train",
    help="Train a classifier on MNIST, CIFAR-10 or your own images.",
)
app.command(
    "unmask.cli.evaluate:evaluate_model",
    name="evaluate",
    help="Measure a classifier: accuracy, confusion, calibration, worst mistakes.",
)
app.command(
    "unmask.cli.show:show",
    name="show",
    help="Show a network's structure: layers, shapes, parameters and multiply-adds.",
)
app.command(
    "unmask.cli.models:models",
    name="models",
    help="List the models known by name.",
)
app.command(
    "unmask.cli.export:export",
    name="export",
    help="Write a classifier as ONNX, checked against PyTorch.",
)
app.command(
    "unmask.cli.serve:serve",
    name="serve",
    help="Serve the page and the HTTP API on this machine.",
)
app.command(
    "unmask.cli.mcp:mcp",
    name="mcp",
    help="Serve check, audit, detect and explain to an assistant over stdio (MCP).",
)
app.command(
    "unmask.cli.reproduce:reproduce_document",
    name="reproduce",
    help="Run the whole course report and show its figures beside ours.",
)
app.command(
    "unmask.cli.doctor:doctor",
    name="doctor",
    help="Show versions, processor, GPU, data and models found, for bug reports.",
)
app.command(
    "unmask.cli.completion:completion",
    name="completion",
    help="Print what makes bash, zsh or fish complete these commands.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: by default those of the process.

    Returns:
        The verb's own status, 2 for a mistake of the user's, reported in one line on stderr, and
        130 after Ctrl-C.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if watching := tokens[:2] == ["flow", "watch"]:
        from unmask.cli.flow_watch import before_script

        tokens = before_script(tokens)
    try:
        if not watching:
            # A script's own arguments may be empty.
            _check_filled(tokens)
            _check_verb(tokens)
        with _contained():
            status = app(
                tokens,
                exit_on_error=False,
                print_error=False,
                verbose=False,
                result_action="return_value",
            )
        if sys.stdout is not None:
            sys.stdout.flush()
    except CycloptsError as error:
        if os.environ.get("RANK", "0") != "0":
            # torchrun has started several processes with this mistake; the first reports it.
            return USER_MISTAKE
        command = " ".join(["unmask", *(error.command_chain or ())])
        if isinstance(error.__cause__, UserError):
            # The message of our own validator names the option itself.
            return _complain(f"{error.__cause__}. See {command} --help.", USER_MISTAKE)
        return _complain(_renamed(error) or f"{error} See {command} --help.", USER_MISTAKE)
    except UserError as error:
        return _complain(str(error), USER_MISTAKE)
    except KeyboardInterrupt as interrupt:
        return _complain(str(interrupt) or "stopped", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has closed it; what Python still buffers must be discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SystemExit as end:
        # A gate must not pass because the user's code ended it before there was a verdict.
        if os.environ.get("RANK", "0") != "0":
            # Another process of this training failed, and the first reports why.
            return USER_MISTAKE
        return _complain(f"the code that was loaded called exit({end.code!r})", USER_MISTAKE)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _complain(f"can't read or write{where}: {error.strerror or error}", USER_MISTAKE)
    except Exception as error:
        # This module is loaded only if the user's code was run.
        imported = sys.modules.get("unmask.models.imported")
        if getattr(sys.stdout, "closed", False):
            return _complain("the code that was loaded closed stdout", USER_MISTAKE)
        if imported is None or not (line := imported.blamed(error)):
            raise
        return _complain(line, USER_MISTAKE)
    except BaseException as error:
        return _complain(f"the code that was loaded raised {told(error)}", USER_MISTAKE)
    return status if isinstance(status, int) else DONE


def _check_filled(tokens: Sequence[str]) -> None:
    """Raise UserError for an empty value, as an unset variable in a script leaves it."""
    for before, token in zip(["", *tokens], tokens, strict=False):
        name, equals, value = token.partition("=")
        if token.strip() and not (equals and name.startswith("--") and not value.strip()):
            continue
        option = name if equals else before
        what = option if option.startswith("--") else f"the value after {option or 'unmask'}"
        raise UserError(f"{what} is empty", do="give a value, or leave the option out")


def _check_verb(tokens: Sequence[str]) -> None:
    """Raise UserError for a verb that isn't there; cyclopts would load every one to say so."""
    group, command = app, "unmask"
    for token in tokens:
        names = list(group)
        verbs = [name for name in names if not name.startswith("-")]
        # A verb with arguments of its own, such as data, decides what they are.
        if not verbs or group.default_command or token in set(names) - set(verbs):
            return
        if token.startswith("-"):
            raise UserError(f"unknown option: {token}. See {command} --help.")
        if token not in verbs:
            raise UserError(f"{unknown('command', token, verbs)}. See {command} --help.")
        group, command = group[token], f"{command} {token}"


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Turn os._exit of loaded code into exit, and restore the streams that it replaced."""
    streams, leave, process = (sys.stdout, sys.stderr), os._exit, os.getpid()

    def exit_seen(status: int) -> NoReturn:
        # A process that was forked, as by a data loader, ends as it likes.
        if os.getpid() != process:
            leave(status)
        raise SystemExit(status)

    os._exit = exit_seen
    try:
        yield
    finally:
        os._exit = leave
        sys.stdout, sys.stderr = streams
        if runtime := sys.modules.get("unmask.runtime"):
            runtime.release_folders()


def _renamed(error: CycloptsError) -> str:
    """Return the message for a spelling of an earlier version, or nothing."""
    from unmask.cli.options import RENAMED

    token = getattr(error, "token", None)
    option = (getattr(token, "keyword", None) or "").partition("=")[0]
    return f"{option} is now {RENAMED[option]}" if option in RENAMED else ""


def _complain(line: str, status: int) -> int:
    # Loaded code may have closed stderr, and the disk that it is redirected to may be full.
    with contextlib.suppress(ValueError, OSError):
        print(f"unmask: {printable(' '.join(line.split()))}", file=sys.stderr)
    return status
