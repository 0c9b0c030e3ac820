"""The command `unmask`: one of its verbs is run, and what becomes of it is an exit status."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from unmask.cli import verbs
from unmask.errors import UserError
from unmask.text import printable, told

if TYPE_CHECKING:
    from cyclopts import CycloptsError

DONE, USER_MISTAKE, INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: by default those of the process.

    Returns:
        The verb's own status, 2 for a mistake of the user's, reported in one line on stderr, and
        130 after Ctrl-C.
    """
    if arguments is None:
        # The process ends with this command; its last search for garbage took 60 ms.
        atexit.register(gc.freeze)
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if watching := tokens[:2] == ["flow", "watch"]:
        from unmask.cli.flow_watch import before_script

        tokens = before_script(tokens)
    try:
        if not watching:
            # A script's own arguments may be empty.
            _check_filled(tokens)
            if (text := verbs.answer(tokens)) is not None:
                print(text, flush=True)
                return DONE
        with _contained():
            status = _run(tokens)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        return _complain(str(error), USER_MISTAKE)
    except KeyboardInterrupt as interrupt:
        return _complain(str(interrupt) or "stopped", INTERRUPTED)
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            # rich exits with 1 then.
            return _reader_left()
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


def _run(tokens: Sequence[str]) -> object:
    """Run a verb and return its status; raise UserError for arguments that it doesn't take."""
    gc.disable()
    try:
        # What the parser's modules leave behind isn't worth the searches for garbage among them.
        from cyclopts import CycloptsError

        app = verbs.app()
    finally:
        gc.enable()
    try:
        return app(
            tokens,
            exit_on_error=False,
            print_error=False,
            verbose=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        if os.environ.get("RANK", "0") != "0":
            # torchrun has started several processes with this mistake; the first reports it.
            return USER_MISTAKE
        command = " ".join(["unmask", *(error.command_chain or ())])
        if isinstance(error.__cause__, UserError):
            # The message of our own validator names the option itself.
            raise UserError(f"{error.__cause__}. See {command} --help.") from error
        raise UserError(_explained(error, command) or f"{error} See {command} --help.") from error


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


def _explained(error: CycloptsError, command: str) -> str:
    """Return our own message for an option's other name or a wrong count of arguments, or ""."""
    from cyclopts import MissingArgumentError, UnknownOptionError, UnusedCliTokensError

    from unmask.cli.options import ELSEWHERE, RENAMED

    if isinstance(error, UnusedCliTokensError) and (spare := error.unused_tokens):
        return f"{spare[0]!r} is an argument too many. See {command} --help."
    missing = error.argument if isinstance(error, MissingArgumentError) else None
    if missing is not None and not missing.name.startswith("-"):
        return f"{missing.name} is missing. See {command} --help."
    token = getattr(error, "token", None)
    given = getattr(token, "keyword", None) or getattr(token, "value", None) or ""
    option = given.partition("=")[0]
    if isinstance(error, UnknownOptionError):
        own = {name for argument in error.argument_collection for name in argument.names}
        if near := [name for name in ELSEWHERE.get(option, ()) if name in own]:
            return f"Unknown option: {option}. It is {near[0]} here. See {command} --help."
    return f"{option} is now {RENAMED[option]}" if option in RENAMED else ""


def _reader_left() -> int:
    """Discard what Python still buffers for a reader of our output that has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _complain(line: str, status: int) -> int:
    # Loaded code may have closed stderr, and the disk that it is redirected to may be full.
    with contextlib.suppress(ValueError, OSError):
        print(f"unmask: {printable(' '.join(line.split()))}", file=sys.stderr)
    return status
