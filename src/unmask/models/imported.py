"""A model by its import path, for the command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from unmask.errors import UserError, unknown


def load_model(path: str) -> nn.Module:
    """Return the model that "my_module:make_model" makes, or is.

    The module is looked for in the working folder first. Raises UserError when the path has
    another form, can't be imported, isn't there, raises, or gives no torch.nn.Module.
    """
    model = load_object(path)
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise UserError(
                f"{path} is no model and no function that makes one", got=type(model).__name__
            )
        try:
            model = model()
        except Exception as error:
            raise UserError(
                f"{path} raised", got=_said(error), do="it must work without arguments"
            ) from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{path} returned no torch.nn.Module",
            got=type(model).__name__,
            do="return the network itself",
        )
    return model


def load_object(path: str) -> Any:
    """Return what "my_module:name" names. Raises UserError when it can't be imported."""
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise UserError(
            "an import path has the form my_module:make_model", got=repr(path), do="mind the colon"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
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
        raise UserError(f"importing {module_name} failed", got=_said(error)) from error
    except Exception as error:
        raise UserError(f"importing {module_name} failed", got=_said(error)) from error
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")][:20]
            raise unknown(f"name in {module_name}", part, public)
        found = getattr(found, part)
    return found


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
