"""Datasets found on disk or downloaded: a broken download is resumed, every file is verified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from unmask.data.cards import DatasetCard, RemoteFile
from unmask.errors import UserError
from unmask.runtime import open_regular, write_atomically

ROUNDS = 5
CONNECT_SECONDS, READ_SECONDS = 10, 60
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int], None]


class _DownloadError(Exception):
    """A download that ended too early or delivered another file."""


def fetch_dataset(card: DatasetCard, *, progress: Progress | None = None) -> tuple[Path, ...]:
    """Return the paths of a dataset's files, each with the SHA-256 that its card states.

    Files are searched for in the folder that the environment variable UNMASK_DATA names, in the
    folder card.name within it, and in the user's cache folder; otherwise they are downloaded into
    the cache. A download that broke off, in this call or an earlier one, resumes where it stopped.

    Args:
        card: the dataset, such as CARDS["mnist"].
        progress: called with the bytes done and the bytes in all, over all files.

    Returns:
        A path for each of card.files, in their order.

    Raises:
        UserError: when there is no network or no space, a file has another checksum, or the dataset
            can only be downloaded by hand.
    """
    if not card.files:
        raise UserError(f"{card.title} can't be downloaded without an account", do=card.by_hand)
    total = sum(file.size for file in card.files)
    before = 0
    paths = []
    for file in card.files:

        def report(done: int, before: int = before) -> None:
            if progress:
                progress(before + done, total)

        paths.append(_at_home(card, file) or _cached(card, file, report))
        report(file.size)
        before += file.size
    return tuple(paths)


def cache_folder() -> Path:
    """Return the folder into which datasets are downloaded."""
    import platformdirs

    return platformdirs.user_cache_path("unmask")


def _at_home(card: DatasetCard, file: RemoteFile) -> Path | None:
    home = os.environ.get("UNMASK_DATA")
    if not home:
        return None
    folder = Path(home)
    if not folder.is_dir():
        raise UserError(
            "UNMASK_DATA must name a folder", got=home, do="create it, or unset the variable"
        )
    for path in (folder / file.name, folder / card.name / file.name):
        if path.is_file():
            if not _is_sound(path, file):
                raise UserError(
                    f"{path} isn't the file of {card.title}",
                    got="another SHA-256",
                    do="delete it, and download it again",
                )
            return path
    return None


def _is_sound(path: Path, file: RemoteFile) -> bool:
    try:
        with open_regular(path) as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except OSError as error:
        raise UserError(f"can't read {path}", got=error.strerror) from error


def _cached(card: DatasetCard, file: RemoteFile, report: Callable[[int], None]) -> Path:
    from requests.exceptions import RequestException

    folder = cache_folder() / card.name
    path = folder / file.name
    if path.is_file() and _is_sound(path, file):
        return path
    partial_file = folder / f"{file.name}.part"
    reason = ""
    for _ in range(ROUNDS):
        had = _size(partial_file)
        for url in file.urls:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _download(url, partial_file, file.size, report)
                _checked(partial_file, path, file)
                return path
            except (RequestException, _DownloadError) as error:
                reason = _in_words(error)
            except OSError as error:
                raise UserError(
                    f"can't write to {folder}",
                    got=error.strerror or str(error),
                    do="free some space, or set UNMASK_DATA to a folder that holds the file",
                ) from error
        # Another round is only worth it after progress: more bytes, or a partial file that was bad
        # and has been deleted.
        if _size(partial_file) == had:
            break
    if path.exists():
        reason += ", and the file already there has another SHA-256"
    raise UserError(
        f"can't download {file.name} of {card.title}",
        got=reason,
        do=f"fetch {file.urls[0]} by hand and put it into {folder}, or set UNMASK_DATA to the "
        "folder that holds it",
    )


def _download(url: str, partial_file: Path, size: int, report: Callable[[int], None]) -> None:
    """Complete the partial file, from the bytes that it has."""
    import requests
    import urllib3

    done = _size(partial_file)
    if done < size:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                partial_file.unlink(missing_ok=True)
            if not response.ok:
                raise _DownloadError(f"the answer {response.status_code} {response.reason}")
            resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
            done = done if resumed else 0
            # The raw bytes, since a server may declare the .gz that it sends as a content encoding.
            chunks = response.raw.stream(CHUNK_BYTES, decode_content=False)
            try:
                with partial_file.open("ab" if resumed else "wb") as file:
                    for chunk in chunks:
                        done += file.write(chunk)
                        report(min(done, size))
                        if done > size:
                            break
            except urllib3.exceptions.HTTPError as error:
                raise _DownloadError(_broken_off(done, size)) from error
    if done < size:
        raise _DownloadError(_broken_off(done, size))


def _checked(partial_file: Path, path: Path, file: RemoteFile) -> None:
    """Copy the download to its place if it is the right file, and delete it if it isn't."""
    digest = hashlib.sha256()
    try:
        # Copied and not renamed: another process that also writes the partial file can't reach
        # the copy.
        with partial_file.open("rb") as got, write_atomically(path) as out:
            while chunk := got.read(CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
            if digest.hexdigest() != file.sha256:
                raise _DownloadError("a file with another SHA-256")
    except _DownloadError:
        partial_file.unlink(missing_ok=True)
        raise
    partial_file.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _broken_off(done: int, size: int) -> str:
    return f"{done} of {size} bytes before the connection broke off"


def _in_words(error: Exception) -> str:
    from requests import exceptions

    for kind, words in (
        (exceptions.SSLError, "a certificate that can't be trusted"),
        (exceptions.ProxyError, "no connection through the proxy"),
        (exceptions.Timeout, "no answer in time"),
        (exceptions.ConnectionError, "no connection"),
    ):
        if isinstance(error, kind):
            return words
    return str(error)
