"""What is to be processed: an image, a folder or zip of images, a pattern, a video or a camera."""

from __future__ import annotations

import contextlib
import functools
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from unmask.data.listing import Listing, PictureFile, list_pictures, read_file, skipped
from unmask.data.picture import PLUGIN_SUFFIXES, SUFFIXES, missing_plugin
from unmask.errors import UserError
from unmask.runtime import require_regular

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)


# Files that may show faces and that nothing here opens.
_OTHER_MEDIA = frozenset({
    ".3gp", ".arw", ".cr2", ".cr3", ".dng", ".exr", ".flv", ".gifv", ".hdr", ".j2k", ".jp2", ".jxl",
    ".m2ts", ".mts", ".mxf", ".nef", ".ogv", ".orf", ".pdf", ".psd", ".raf", ".raw", ".rw2", ".svg",
    ".tga", ".vob",
})  # fmt: skip


@dataclass(frozen=True)
class VideoSource:
    """A video, camera or stream.

    Args:
        name: of the video, without user or password.
        address: what opens it: a path, a URL or a camera's number.
        live: whether it goes on while nobody reads it, as cameras and streams do.
    """

    name: str
    address: str | int
    live: bool


@dataclass(frozen=True)
class Sources:
    """The image files and videos to process.

    Args:
        pictures: the image files.
        videos: the videos.
        warnings: one line for each file that was passed over.
        passed_over: the names of files that may show faces and can't be opened.
    """

    pictures: list[PictureFile]
    videos: list[VideoSource]
    warnings: list[str]
    passed_over: list[str] = field(default_factory=list)

    @staticmethod
    def joined(parts: list[Sources]) -> Sources:
        """Return all images and videos of the parts, in their order, no two named alike.

        Args:
            parts: what was found under each argument. Of equal names the second moves into a folder
                2, the third into a folder 3.
        """
        pictures = [picture for part in parts for picture in part.pictures]
        videos = [video for part in parts for video in part.videos]
        paths = _distinct([picture.path for picture in pictures])
        names = _distinct([(video.name,) for video in videos])
        return Sources(
            [replace(p, path=path) for p, path in zip(pictures, paths, strict=True)],
            [replace(v, name="/".join(name)) for v, name in zip(videos, names, strict=True)],
            [warning for part in parts for warning in part.warnings],
            [name for part in parts for name in part.passed_over],
        )


@contextlib.contextmanager
def open_sources(text: str) -> Iterator[Sources]:
    """Find what text names, readable until the block ends.

    Args:
        text: an image or video file, a folder or zip archive (all images in it, at any depth), a
            pattern with *, ? or [...] (** for any depth), a camera's number, or the address of a
            stream such as rtsp://host/path.

    Raises:
        UserError: when there is no such thing or no image in it.
    """
    path = Path(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        yield Sources([], [VideoSource(_named(text), text, True)], [])
    elif text.isascii() and text.isdigit() and not path.exists():
        yield Sources([], [VideoSource(f"camera-{int(text)}", int(text), True)], [])
    elif path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip"):
        known = SUFFIXES | PLUGIN_SUFFIXES | VIDEO_SUFFIXES | _OTHER_MEDIA
        with list_pictures(path, known) as listing:
            yield _of_listing(path, listing)
    elif path.exists():
        require_regular(path)
        yield _files([path])
    elif any(sign in text for sign in "*?["):
        # Path.glob refuses a pattern that begins at the root.
        names = glob.glob(text, recursive=True)  # noqa: PTH207
        found = [Path(name) for name in sorted(names)]
        files = [file for file in found if file.is_file()]
        if not files:
            raise UserError("no file fits the pattern", got=text, do="put it in quotes")
        yield _files(files)
    else:
        raise UserError(
            "there is no such source",
            got=text,
            do="give an image, a folder, a pattern, a video, a camera's number or an address",
        )


def _of_listing(path: Path, listing: Listing) -> Sources:
    """Return the images and videos of a folder or archive; videos in an archive can't be opened."""

    def of(suffixes: frozenset[str]) -> list[PictureFile]:
        return [f for f in listing.files if Path(f.path[-1]).suffix.lower() in suffixes]

    lacking = {suffix: missing_plugin(suffix) for suffix in PLUGIN_SUFFIXES}
    unread = frozenset(suffix for suffix, plugin in lacking.items() if plugin)
    images, videos = of(SUFFIXES | (PLUGIN_SUFFIXES - unread)), of(VIDEO_SUFFIXES)
    others = of(_OTHER_MEDIA | unread)
    if not path.is_dir():
        videos, others = [], others + videos
    passed_over = ["/".join(file.path) for file in others]
    warnings = list(listing.warnings)
    # What list_pictures left out and named may hold faces.
    passed_over += [line for line in warnings if " skipped: " in line]
    for file in others:
        plugin = lacking.get(Path(file.path[-1]).suffix.lower())
        reason = "no format that is opened here" + (f"; {plugin}" if plugin else "")
        warnings.append(skipped(file.path, reason))
    if not images and not videos:
        seen = warnings[0] if warnings else "nothing"
        raise UserError(f"no images in {path}", got=seen, do="give one with images")
    named = [_shown(file.path) for file in videos]
    opened = [
        VideoSource(name, str(path.joinpath(*f.path)), False)
        for name, f in zip(named, videos, strict=True)
    ]
    return Sources(images, opened, warnings, passed_over)


def _files(files: list[Path]) -> Sources:
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    pictures = [file for file in files if file not in set(videos)]
    return Sources(
        [PictureFile(_below(file), functools.partial(read_file, file)) for file in pictures],
        [VideoSource(_shown(_below(file)), str(file), False) for file in videos],
        [],
    )


def _shown(path: tuple[str, ...]) -> str:
    """Return a name that can be printed and written, even of a file whose name isn't UTF-8."""
    return "/".join(path).encode(errors="backslashreplace").decode()


def _distinct(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    seen: set[tuple[str, ...]] = set()
    distinct = []
    for path in paths:
        own, number = path, 2
        while own in seen:
            own, number = (str(number), *path), number + 1
        seen.add(own)
        distinct.append(own)
    return distinct


def _below(file: Path) -> tuple[str, ...]:
    """Return a file's path so that it stays below any folder that it is put into."""
    parts = tuple(part for part in file.parts if part not in (file.anchor, "..", "."))
    return parts if not file.is_absolute() else parts[-1:]


def _named(address: str) -> str:
    """Return a name for a stream that holds neither its user nor its password."""
    host = re.sub(r"^[^/]*//(?:[^/@]*@)?", "", address).partition("?")[0]
    return re.sub(r"[^A-Za-z0-9.-]+", "-", host).strip("-.") or "stream"
