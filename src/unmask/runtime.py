"""Threads, seeds, provenance, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

try:
    import fcntl
except ImportError:
    # Windows has no flock.
    fcntl = None  # type: ignore[assignment]

from unmask.errors import UserError


def cpu_threads() -> int:
    """Return how many threads this process may run at once."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def seeded(*key: int) -> np.random.Generator:
    """Return a generator whose stream depends on the whole numbers of key alone.

    Raises:
        UserError: one of them is below 0.
    """
    for part in key:
        if part < 0:
            raise UserError("a seed is a whole number of 0 or more", got=part)
    # Imported here, since it takes longer than all the help that needs none of it.
    import numpy as np

    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def sha256(*chunks: bytes | memoryview) -> str:
    """Return the SHA-256 of the chunks as if they were joined, in hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def environment_stamp(**entries: Any) -> dict[str, Any]:
    """Return the provenance of a result: versions, processor, command, and the entries.

    Args:
        entries: further plain values by name, such as seed and checksums.
    """
    # Imported here, as NumPy above.
    from importlib import metadata

    libraries = {}
    for name in ("numpy", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
    return {
        "unmask": sys.modules[__package__ or "unmask"].__version__,
        "python": platform.python_version(),
        "libraries": libraries,
        "platform": platform.platform(),
        "processor": _processor(),
        "command": " ".join([_program(sys.argv[0]), *sys.argv[1:]]),
        **entries,
    }


def _program(started: str) -> str:
    """Return the command by which a person would start this program."""
    script = Path(started)
    if script.suffix != ".py" or script.name == "__main__.py":
        return "unmask"
    return f"python {script.name if script.is_absolute() else script}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a pipe, a device or a socket, for files that other code opens.

    Args:
        path: a file, or a link to one. Folders and missing files pass; the code that opens them
            reports them.

    Raises:
        UserError: reading it could wait for ever or never end.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _special(path, mode)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading, but never a pipe, a device or a socket, which may never end.

    The opened file itself is checked, so nothing can be put in its place in between.

    Args:
        path: the file.

    Raises:
        UserError: it is no regular file.
        OSError: it is missing, a folder or can't be read.
    """
    if Path(path).is_socket():
        raise _special(path, stat.S_IFSOCK)
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    # Without O_BINARY, Windows translates line ends.
    number = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(number).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _special(path, mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Return a regular file's bytes.

    Args:
        path: the file.
        most: how many bytes it may hold, None for any number.

    Raises:
        UserError: it is a pipe, a device or a socket, or longer.
        OSError: see open_regular.
    """
    with open_regular(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise UserError(f"{path} is too large", do=f"the limit is {most} bytes")
    return content


_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _special(path: str | os.PathLike[str], mode: int) -> UserError:
    return UserError(
        f"{os.fspath(path)} is no regular file",
        got=_SPECIAL.get(stat.S_IFMT(mode), "something else"),
        do="copy what it gives into a file, and give that",
    )


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces path when the block ends well, and is removed otherwise.

    Args:
        path: of the file; its folder is made where it is missing.

    Raises:
        UserError: the folder can't be written or the disk is full; the old file is then still
            whole.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=unfinished(path.name), delete=False
        ) as file:
            temporary = Path(file.name)
            _written.add(temporary.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"can't write {path}",
            got=error.strerror or str(error),
            do="free some space or choose another folder",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _written.discard(temporary.name)


# Temporary files that this process is writing, and the folders that it has cleaned of others'.
_written: set[str] = set()
_swept: set[Path] = set()


def _writer(process: int) -> str:
    """Return the name of a process, unique among the machines that share a disk."""
    return f"{sha256(platform.node().encode())[:8]}-{process}"


def unfinished(name: str) -> str:
    """Return the beginning of the name of a file that this process has not finished.

    Args:
        name: of the finished file.
    """
    return f".{name}.{_writer(os.getpid())}."


def sweep(folder: Path) -> None:
    """Remove the unfinished files that killed processes of this machine left in a folder, once."""
    if folder in _swept:
        return
    _swept.add(folder)
    here = _writer(0).removesuffix("0")
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            _, _, rest = entry.name.partition(f".{here}")
            process, _, serial = rest.partition(".")
            if not (entry.name.startswith(".") and process.isdecimal() and serial):
                continue
            if entry.name in _written or _other_runs(int(process)):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _other_runs(process: int) -> bool:
    if process == os.getpid():
        return False
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


# The folders that this process has claimed, with the file descriptors of their locks.
_claimed: dict[Path, int] = {}
_made: set[Path] = set()


def claim_folder(folder: Path, data: str | Path = "") -> None:
    """Reserve a folder for this process until release_folders, so that no two runs share one.

    Args:
        folder: where a run writes; made where it is missing. A folder that this process has claimed
            already stays claimed.
        data: the images that are read, in whose folder output would be taken for images; "" for
            none.

    Raises:
        UserError: it lies in the folder of the images, another process has claimed it, or it can't
            be made.
    """
    if data and Path(data).is_dir() and folder.resolve().is_relative_to(Path(data).resolve()):
        raise UserError(
            "the folder of the output lies in that of the images",
            got=folder,
            do="choose another --out",
        )
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"can't write {folder}", got=error.strerror, do="choose another folder"
        ) from error
    place = folder.resolve()
    if new:
        _made.add(place)
    if fcntl is None or place in _claimed:
        return
    number = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise UserError(
            f"another run writes into {folder}", do="wait for its end, or choose another --out"
        ) from None
    except OSError:
        # Some network file systems have no locks; the run continues without one.
        os.close(number)
        return
    _claimed[place] = number


def release_folders() -> None:
    """Release the folders that claim_folder claimed."""
    for place in (*_claimed, *_made):
        _release(place)


@contextlib.contextmanager
def claimed_folder(folder: Path, data: str | Path = "") -> Iterator[None]:
    """Claim a folder while the block runs; see claim_folder. If it stays empty, it is removed."""
    claim_folder(folder, data)
    try:
        yield
    finally:
        _release(folder.resolve())


def _release(place: Path) -> None:
    if place in _made:
        _made.discard(place)
        # A run without results leaves no folder.
        with contextlib.suppress(OSError):
            place.rmdir()
    if place in _claimed:
        os.close(_claimed.pop(place))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
