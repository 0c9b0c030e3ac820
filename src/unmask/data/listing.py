"""The image files in a folder or a zip archive, which may be malicious."""

from __future__ import annotations

import contextlib
import functools
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from unmask.data.picture import SUFFIXES
from unmask.errors import UserError
from unmask.runtime import open_regular

# The beginning of the warning for files beside the images.
OTHERS = "skipped, not images"
# What Windows leaves in folders of images; what other systems leave is hidden.
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
MAX_MEMBERS = 1_000_000
MAX_FILE_BYTES = 1 << 28
MAX_ARCHIVE_BYTES = 1 << 36
MAX_ARCHIVE_RATIO = 100
RATIO_COUNTS_FROM_BYTES = 1 << 28


@dataclass(frozen=True)
class PictureFile:
    """A file that may hold an image.

    Args:
        path: the names of the folders below the root, and of the file.
        read: returns at most MAX_FILE_BYTES, and raises UserError for a file that can't be read.
    """

    path: tuple[str, ...]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Listing:
    """The image files of a tree, and what was left out.

    Args:
        files: in the order of their paths.
        warnings: one line for each file that was left out, and one for all that are no images.
    """

    files: list[PictureFile]
    warnings: list[str]


@contextlib.contextmanager
def list_pictures(root: Path, suffixes: frozenset[str] = SUFFIXES) -> Iterator[Listing]:
    """List the image files of a folder or a zip archive, readable until the block ends.

    Nothing is unpacked to disk. Hidden files and those of the system are skipped without a warning.
    Links that lead back into the tree, pipes and devices, members whose path leaves the archive,
    and names with control characters are left out with a warning.

    Args:
        root: the folder or zip archive.
        suffixes: of the files to list, in lower case; by default those of images.

    Yields:
        The files and the warnings.

    Raises:
        UserError: when root is neither a folder nor a zip archive, or holds more than MAX_MEMBERS
            files, or when an archive would grow to more than MAX_ARCHIVE_BYTES or, from
            RATIO_COUNTS_FROM_BYTES on, to more than MAX_ARCHIVE_RATIO times its size.
    """
    wanted = "give a folder of images or a zip archive"
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise UserError(f"can't read {root}", got=error.strerror, do=wanted) from error
    if stat.S_ISDIR(mode):
        yield _listing(root, _walk(root), suffixes)
    elif stat.S_ISREG(mode):
        with _opened(root) as archive:
            yield _listing(root, _members(root, archive), suffixes)
    else:
        raise UserError(f"{root} is neither a folder nor a file", do=wanted)


# A file of a tree: its path, and a function that reads it or the reason why it can't be read.
_Found = tuple[tuple[str, ...], Callable[[], bytes] | str]


def _listing(root: Path, found: Iterator[_Found], suffixes: frozenset[str]) -> Listing:
    files: list[PictureFile] = []
    left_out: list[tuple[tuple[str, ...], str]] = []
    others: list[str] = []
    for count, (path, read) in enumerate(found):
        if count >= MAX_MEMBERS:
            raise UserError(f"{root} holds more than {MAX_MEMBERS} files", do="choose a part of it")
        name = "/".join(path)
        if any(part == "__MACOSX" or (part != ".." and part.startswith(".")) for part in path):
            continue
        if path and path[-1].lower() in _SYSTEM:
            continue
        if isinstance(read, str):
            left_out.append((path, read))
        elif PurePosixPath(name).suffix.lower() not in suffixes:
            others.append(name)
        elif not name.isprintable():
            left_out.append((path, "its name holds characters that can't be shown"))
        else:
            files.append(PictureFile(path, read))
    warnings = [skipped(path, reason) for path, reason in sorted(left_out)]
    if others:
        warnings.append(f"{OTHERS}: {len(others)}, the first {min(others)!r}")
    return Listing(sorted(files, key=lambda file: file.path), warnings)


def skipped(path: tuple[str, ...], reason: str) -> str:
    """Return the warning for a file that is left out."""
    return f"{'/'.join(path) or '.'!r} skipped: {reason}"


def _walk(root: Path) -> Iterator[_Found]:
    # A folder is entered once, however many links lead to it: this ends loops, and the many paths
    # that links to folders of links make.
    entered: dict[tuple[int, int], str] = {}
    pending: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while pending:
        folder, path = pending.pop()
        try:
            status = folder.stat()
            children = [(c, c.is_dir(), c.is_file()) for c in sorted(folder.iterdir())]
        except OSError as error:
            yield path, f"the folder can't be read ({error.strerror})"
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in entered:
            yield path, f"it links to {entered[identity]!r}, which was read already"
            continue
        entered[identity] = "/".join(path) or "."
        for child, is_folder, is_regular in reversed(children):
            below = (*path, child.name)
            if is_folder:
                pending.append((child, below))
            elif is_regular:
                yield below, functools.partial(read_file, child)
            else:
                yield below, "it is no regular file"


def read_file(file: Path) -> bytes:
    """Return a file's bytes.

    Args:
        file: a regular file.

    Raises:
        UserError: when it can't be read or has more than MAX_FILE_BYTES.
    """
    try:
        with open_regular(file) as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError("the file can't be read", got=error.strerror) from error
    if len(data) > MAX_FILE_BYTES:
        raise UserError("the file is too large", do=f"the limit is {MAX_FILE_BYTES} bytes")
    return data


def _opened(root: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(root)
    except Exception as error:  # A damaged directory raises many kinds of exceptions.
        raise UserError(
            f"{root} is no readable zip archive",
            got=str(error) or type(error).__name__,
            do="give a folder of images or a zip archive",
        ) from error


def _members(root: Path, archive: zipfile.ZipFile) -> Iterator[_Found]:
    members = [m for m in archive.infolist() if not m.filename.endswith("/")]
    unpacked, packed = sum(m.file_size for m in members), root.stat().st_size
    # The size on disk is compared, since members may lie about theirs or share their bytes.
    grows = unpacked > max(RATIO_COUNTS_FROM_BYTES, MAX_ARCHIVE_RATIO * packed)
    if grows or unpacked > MAX_ARCHIVE_BYTES:
        raise UserError(
            f"{root} would grow too much when unpacked",
            got=f"{unpacked} bytes in {packed}",
            do="unpack it by hand if you trust it, and give the folder",
        )
    for member in members:
        # Archives from Windows may separate names with backslashes.
        path = PurePosixPath(member.filename.replace("\\", "/"))
        refusal = _refusal(path, member)
        yield path.parts, refusal or functools.partial(_read_member, archive, member)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except Exception as error:  # Damage and encryption raise many kinds of exceptions.
        reason = str(error) or type(error).__name__
        raise UserError("the archive is damaged or locked here", got=reason) from error


def _refusal(path: PurePosixPath, member: zipfile.ZipInfo) -> str:
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(path).drive:
        return "its path leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "it is a link"
    # Other methods can't be unpacked in bounded steps.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is compressed by another method than deflate"
    if member.file_size > MAX_FILE_BYTES:
        return f"the file is too large; the limit is {MAX_FILE_BYTES} bytes"
    return ""
