"""Zip archives unpacked into the cache, where images can be read one by one."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from unmask.data.fetch import cache_folder
from unmask.data.listing import list_pictures
from unmask.errors import UserError
from unmask.runtime import open_regular, sweep, unfinished


def unpacked(archive: Path, suffixes: frozenset[str]) -> Path:
    """Return the folder in the cache that holds an archive's files, unpacked at most once.

    An archive is unpacked whole or not at all, and recognised by its SHA-256. What list_pictures
    leaves out is left out here.

    Args:
        archive: a zip archive.
        suffixes: of the files to unpack, in lower case.

    Raises:
        UserError: when it is no zip archive, is damaged or malicious, or the cache can't be
            written.
    """
    try:
        with open_regular(archive) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"can't read {archive}", got=error.strerror) from error
    home = cache_folder() / "unpacked"
    folder = home / digest[:16]
    if folder.is_dir():
        return folder
    with list_pictures(archive, suffixes) as listing:
        try:
            home.mkdir(parents=True, exist_ok=True)
            sweep(home)
            with tempfile.TemporaryDirectory(dir=home, prefix=unfinished(digest[:16])) as name:
                part = Path(name) / "part"
                for file_in in listing.files:
                    target = part.joinpath(*file_in.path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file_in.read())
                part.mkdir(exist_ok=True)
                # Another process may have been faster, with the same files.
                if not folder.is_dir():
                    shutil.move(part, folder)
        except OSError as error:
            raise UserError(
                f"can't unpack {archive} into {home}",
                got=error.strerror or str(error),
                do="free some space, or unpack it by hand and give the folder",
            ) from error
    return folder
