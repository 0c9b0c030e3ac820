"""A model by its import path, and the guard around code from outside."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from unmask.errors import UserError, unknown
from unmask.text import printable, told

# Folders of what is installed and of Unmask itself, whose faults are not the loaded code's.
_LIBRARIES = (str(Path(__file__).parents[1]), sys.prefix, sys.base_prefix)
_FEW_NAMES = 20
# The folders of the loaded modules, to which a fault may belong.
_folders: set[str] = set()


@contextmanager
def foreign(path: str, doing: str = "", do: str = "") -> Iterator[None]:
    """Run code from outside, which may raise anything, exit, or replace the streams.

    Args:
        path: the import path that led to it, for the error.
        doing: what it does, where that isn't clear from the path.
        do: what to do when it raises.

    Raises:
        UserError: it raised anything but KeyboardInterrupt, called exit or closed stdout or stderr.
            Streams that it replaced are restored.
    """
    streams = sys.stdout, sys.stderr
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except SystemExit as end:
        raise UserError(f"{doing or path} called exit({end.code!r})") from end
    except BaseException as error:
        failed = f"{doing} failed" if doing else f"{path} raised"
        raise UserError(failed, got=told(error), do=do) from error
    finally:
        sys.stdout, sys.stderr = streams
    for name, stream in (("stdout", streams[0]), ("stderr", streams[1])):
        if getattr(stream, "closed", False):
            raise UserError(f"{path} closed {name}", do="leave the streams open")


def load_model(path: str) -> nn.Module:
    """Return the model that an import path makes, or is.

    The module is searched for in the working folder first.

    Args:
        path: "my_module:make_model" or "folder/my_file.py:make_model", a function without arguments
            or the model itself.

    Raises:
        UserError: the path has another form, can't be imported, isn't there, raises, gives no
            torch.nn.Module, or one whose parameters have no values.
    """
    model = load_object(path)
    with foreign(path, do="it must work without arguments"):
        if not isinstance(model, nn.Module):
            if not callable(model):
                raise UserError(
                    f"{path} is no model and no function that makes one", got=type(model).__name__
                )
            model = model()
        if not isinstance(model, nn.Module):
            raise UserError(
                f"{path} returned no torch.nn.Module",
                got=type(model).__name__,
                do="return the network itself",
            )
    try:
        parts = list(nn.Module.modules(model))
        tensors = [t for m in parts for t in (*m._parameters.values(), *m._buffers.values())]
    except AttributeError as error:
        raise UserError(
            f"{path} gives a network that isn't whole",
            got=told(error),
            do="call super().__init__() first in its __init__",
        ) from error
    if any(t is not None and t.is_meta for t in tensors):
        raise UserError(
            "the model is on the meta device, where weights have no values",
            got=path,
            do="make it on a real one",
        )
    return model


def refuse_lazy(network: nn.Module) -> None:
    """Raise UserError for a network with layers whose shapes only a first batch determines."""
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters()):
        raise UserError(
            "the model has lazy layers whose shapes aren't known yet",
            got=type(network).__name__,
            do="run one batch through it first",
        )


def load_object(path: str) -> Any:
    """Return what an import path names.

    Args:
        path: "my_module:name" or "folder/my_file.py:name", with dots for attributes.

    Raises:
        UserError: it can't be imported.
    """
    module_name, _, name = path.rpartition(":")
    if not (module_name and name):
        file = Path(path)
        if file.suffix == ".py":
            do = f"name what makes the model too: {path}:make_model"
        elif file.suffix:
            do = "give the function that builds the network and loads this file"
        else:
            do = "name the function after a colon"
        raise UserError("an import path has the form my_module:make_model", got=repr(path), do=do)
    if module_name.endswith(".py"):
        file = Path(module_name)
        if not file.is_file():
            raise UserError("there is no such file", got=module_name)
        folder, module_name = file.resolve().parent, file.stem
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        loaded = sys.modules.get(module_name)
        if loaded is not None and Path(getattr(loaded, "__file__", None) or "") != file.resolve():
            raise UserError(
                f"another module is called {module_name} already",
                got=str(file),
                do="rename the file",
            )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with foreign(path, doing=f"importing {module_name}"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or module_name
            if module_name == missing or module_name.startswith(f"{missing}."):
                raise UserError(
                    f"there is no module {missing}",
                    got=repr(path),
                    do="run the command in the folder that holds it, or install it",
                ) from error
            raise
    outermost = sys.modules.get(module_name.partition(".")[0])
    if source := getattr(outermost, "__file__", None):
        _folders.add(str(Path(source).parent))
    before = module_name
    with foreign(path):
        for part in name.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                public = [n for n in dir(found) if not n.startswith("_")]
                # Of many names, those that are like it say more than the first.
                near = difflib.get_close_matches(part, public, n=5, cutoff=0.5)
                shown = public if len(public) <= _FEW_NAMES else near or public[:_FEW_NAMES]
                raise unknown(f"name in {before}", part, shown) from None
            before += f"{'.' if ':' in before else ':'}{part}"
    return found


def blamed(error: BaseException) -> str:
    """Return one line on an exception that came from loaded code, "" for any other.

    Args:
        error: what nobody caught. It belongs to the loaded code when a frame of its traceback lies
            in the folder of a module that was loaded, and in no library.
    """
    place = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        name = code.co_filename
        if name.startswith(tuple(_folders)) and not name.startswith(_LIBRARIES):
            place = f"{Path(name).name}, line {trace.tb_lineno}, in {code.co_name}"
        trace = trace.tb_next
    if place is None:
        return ""
    where = printable(place, most=200)
    return f"the code that was loaded raised {told(error)}, at {where}"
