"""The verb mask detect: faces with and without masks in images, videos or a camera."""

from __future__ import annotations

import contextlib
import json as json_module
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unmask.cli.options import Threshold, real
from unmask.cli.streams import say
from unmask.errors import UserError
from unmask.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from unmask.data.listing import PictureFile
    from unmask.mask.runtime.detections import Detections
    from unmask.mask.runtime.detector import MaskDetector
    from unmask.mask.runtime.gate import Summary, Watch
    from unmask.mask.runtime.sources import Sources, VideoSource
    from unmask.mask.runtime.writers import Record

FAILED, UNREADABLE, INTERRUPTED = 1, 2, 130
_SHOW_EVERY = 0.5
# The most sightings named when a gate fails.
_MOST_NAMED = 10


@dataclass(frozen=True)
class _Job:
    """The detector with its options, and where its results go."""

    detector: MaskDetector
    options: dict[str, Any]
    summary: Summary
    add: Callable[[Record], None]
    drawn: Path
    blur: bool
    seconds: float | None
    every_frame: bool = False


def detect(
    source: Annotated[
        list[str],
        Parameter(
            help="images, folders or zips of them, patterns in quotes, videos, a camera's "
            "number, or a stream's address"
        ),
    ],
    /,
    *,
    model: Annotated[
        Path | None, Parameter(help="an ONNX file; the one that ships if none")
    ] = None,
    threshold: Threshold = None,
    smallest: Annotated[
        float | None,
        real(1, 10_000, "side in pixels of the smallest faces to find; 10, in large videos more"),
    ] = None,
    blur: Annotated[
        bool, Parameter(help="hide the heads of all that may be faces in what is drawn")
    ] = False,
    require_masks: Annotated[
        bool,
        Parameter(
            help="a gate: exit with 1 when a face is bare or its mask worn improperly, with 2 when "
            "anything was not looked at"
        ),
    ] = False,
    tolerate: Annotated[
        float, real(0, 1e9, "seconds that a person in a video may be without; --require-masks")
    ] = 0.0,
    skip_unreadable: Annotated[
        bool, Parameter(help="let a gate pass though some files could not be read")
    ] = False,
    classes: Annotated[
        tuple[str, ...],
        Parameter(
            help="what the model's classes are: with=NAME without=NAME improper=NAME",
            consume_multiple=True,
        ),
    ] = (),
    all_frames: Annotated[
        bool,
        Parameter(help="every frame of GIF, APNG, WebP and TIFF, as a gate does; else the first"),
    ] = False,
    mirrored: Annotated[bool, Parameter(show=False)] = False,
    formats: Annotated[
        tuple[str, ...],
        Parameter(help="json, jsonl, csv, coco: files to write", consume_multiple=True),
    ] = ("json",),
    seconds: Annotated[
        float | None, real(0, 1e9, "stop a video or camera after so many seconds", above=True)
    ] = None,
    out: Annotated[Path, Parameter(help="the folder for what is drawn and written")] = Path(
        "runs/mask"
    ),
    json: Annotated[bool, Parameter(help="print the faces of images and the summary")] = False,
) -> int:
    """Find faces and tell which wear a mask, which none, which improperly; draw and write it.

    The exit status is 1 when --require-masks fails, and 2 when a file could not be read. A gate is
    passed only when something was read, and nothing left out.
    """
    from unmask.mask.runtime.classes import renamed
    from unmask.mask.runtime.detector import MaskDetector
    from unmask.mask.runtime.gate import Summary, require_mask_class
    from unmask.mask.runtime.sources import Sources, open_sources
    from unmask.mask.runtime.writers import write_records

    refuse_mirrored(mirrored)
    with contextlib.ExitStack() as stack:
        sources = Sources.joined([stack.enter_context(open_sources(text)) for text in source])
        detector = MaskDetector.load(model)
        if classes:
            detector = detector.with_classes(renamed(detector.class_names, classes))
        if require_masks:
            require_mask_class(detector.class_names)
        options: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        if smallest is not None:
            options["smallest"] = smallest
        adders = [
            stack.enter_context(write_records(out, kind, detector.class_names))
            for kind in dict.fromkeys(formats)
        ]
        shown: list[dict[str, Any]] = []
        summary = Summary(detector.class_names, passed_over=sources.passed_over)

        def add(record: Record) -> None:
            for writer in adders:
                writer(record)
            if json and record.numbers is None:
                shown.append(record.as_dict())

        for warning in sources.warnings:
            _say(warning)
        stopped = False
        try:
            every = all_frames or require_masks
            job = _Job(detector, options, summary, add, out / "drawn", blur, seconds, every)
            _look(sources, job)
        except KeyboardInterrupt:
            # The results until then are written and summed up. A camera ends in no other way.
            stopped = not any(video.live for video in sources.videos)
            _say("stopped; the results until now are kept")
    if json:
        print(json_module.dumps({"pictures": shown, "summary": summary.as_dict()}))
    else:
        say(summary.line())
        say(f"drawn and written: {out}")
    if require_masks and (bare := summary.unmasked(tolerate)):
        for sighting in bare[:_MOST_NAMED]:
            _say(sighting.line())
        more = f" ({len(bare)} sightings)" if len(bare) > _MOST_NAMED else ""
        _say(f"not every face wears a mask as it should{more}")
        return FAILED
    if stopped:
        return INTERRUPTED
    if require_masks and not summary.seen:
        _say("nothing was read, so the gate fails")
        return UNREADABLE
    if require_masks and not summary.complete and not skip_unreadable:
        missed = len(summary.failures) + len(summary.passed_over)
        _say(f"{missed} not read, or not read completely; --skip-unreadable lets the gate pass")
        return UNREADABLE
    if require_masks and skip_unreadable:
        return 0
    if summary.failures:
        _say(f"{len(summary.failures)} could not be read, or not completely; all others were")
        return UNREADABLE
    return 0


def _look(sources: Sources, job: _Job) -> None:
    from unmask.data.listing import skipped

    live = sys.stderr.isatty()
    start = shown = time.monotonic()
    for done, file in enumerate(sources.pictures, 1):
        try:
            _look_at_picture(file, job)
        except UserError as error:
            if len(sources.pictures) == 1 and not sources.videos:
                raise UserError(f"{'/'.join(file.path)}: {error}") from error
            _fail(job.summary, skipped(file.path, str(error)))
        now = time.monotonic()
        if live and now - shown > _SHOW_EVERY:
            shown = now
            rate = done / (now - start)
            left = (len(sources.pictures) - done) / rate
            _status(f"{done} of {len(sources.pictures)}, {rate:.1f} images/s, {left:.0f} s left")
    for video in sources.videos:
        try:
            _look_at_video(video, job)
        except UserError as error:
            if not sources.pictures and len(sources.videos) == 1:
                raise
            _fail(job.summary, str(error))


def _look_at_picture(file: PictureFile, job: _Job) -> None:
    from unmask.data.picture import open_frames, open_picture
    from unmask.mask.runtime.drawing import draw, hide
    from unmask.mask.runtime.writers import Record
    from unmask.runtime import write_atomically

    data = file.read()
    name = "/".join(file.path)
    pictures = open_frames(data) if job.every_frame else iter([open_picture(data)])
    picture: Image | None = next(pictures)
    following = next(pictures, None)
    many, number = following is not None, 0
    kind = "PNG" if file.path[-1].lower().endswith(".png") else "JPEG"
    while picture is not None:
        frame = number if many else None
        found, likely = _found(job, picture, {**job.options, "progress": _views(name)})
        job.add(Record(name, found, frame))
        job.summary.add_image(name, found, frame)
        hide(picture, likely)
        path = job.drawn.joinpath(*file.path)
        if number:
            path = path.with_name(f"{path.name}.{number}{'.png' if kind == 'PNG' else '.jpg'}")
        with write_atomically(_named(path, ".jpg", ".jpeg", ".png")) as stream:
            draw(picture, found).save(stream, kind, quality=92)
        picture, following = following, next(pictures, None) if following is not None else None
        number += 1


def _views(name: str) -> Callable[[int, int], None] | None:
    """Return a callback that shows the progress of a slow image on a terminal, or None."""
    if not sys.stderr.isatty():
        return None
    start = shown = time.monotonic()

    def progress(done: int, count: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > _SHOW_EVERY:
            shown = now
            left = (now - start) / done * (count - done)
            _status(f"{name}: view {done} of {count}, {left:.0f} s left")

    return progress


def _found(job: _Job, image: Any, options: dict[str, Any]) -> tuple[Detections, Any]:
    """Return the faces of an image, and the boxes to hide in the drawn image."""
    import numpy as np

    from unmask.mask.runtime.drawing import hide_threshold

    least = options.get("threshold", job.detector.facts.calibration.face)
    if not job.blur:
        return job.detector.detect(image, **options), np.zeros((0, 4), np.float32)
    hidden = min(least, hide_threshold(job.detector.facts.calibration))
    likely = job.detector.detect(image, **{**options, "threshold": hidden})
    return likely.at(np.flatnonzero(likely.scores >= least)), likely.boxes


def _look_at_video(video: VideoSource, job: _Job) -> None:
    import numpy as np
    from PIL import Image

    from unmask.mask.runtime.drawing import draw, hide
    from unmask.mask.runtime.encoder import write_video
    from unmask.mask.runtime.gate import Watch
    from unmask.mask.runtime.tracking import Tracker
    from unmask.mask.runtime.video import VideoReader
    from unmask.mask.runtime.views import WHOLE
    from unmask.mask.runtime.writers import Record

    tracker, options, watch = Tracker(), dict(job.options), Watch(video.name)
    path = _named(job.drawn / video.name, ".mp4")
    live = sys.stderr.isatty()
    with VideoReader(video) as reader, contextlib.ExitStack() as stack:
        # A frame is processed whole and once, which keeps pace, unless smaller faces are wanted.
        once = 10.0 * max(reader.width, reader.height) / WHOLE
        options.setdefault("smallest", max(10.0, once))
        sound = None if video.live else Path(str(video.address))
        write = stack.enter_context(
            write_video(path, reader.width, reader.height, reader.rate, sound=sound)
        )
        stack.callback(lambda: _count(tracker, watch, job.summary))
        start = shown = time.monotonic()
        written, before_this = 0, None
        rate = 0.0
        before = start
        for frame in reader:
            elapsed = time.monotonic() - start if video.live else frame.seconds
            if job.seconds is not None and elapsed >= job.seconds:
                break
            picture = Image.fromarray(frame.pixels)
            found, likely = _found(job, picture, options)
            tracked = tracker.update(found, frame.pixels)
            at = time.time() if video.live else frame.seconds
            watch.see(found, tracked.numbers, frame.number, elapsed)
            job.add(Record(video.name, tracked.detections, frame.number, at, tracked.numbers))
            if job.blur:
                hide(picture, np.vstack([likely, tracked.unseen]))
            now = time.monotonic()
            rate = 0.9 * rate + 0.1 / (now - before) if rate else 1 / (now - before)
            before = now
            note = f"{rate:.0f} frames/s"
            draw(picture, tracked.detections, numbers=tracked.numbers, note=note, grow=False)
            pixels = np.asarray(picture)
            # A frame is repeated until the next: when a camera is faster than the detector, and
            # when a video's frames are further apart than its rate.
            due = max(round(((now - start) if video.live else elapsed) * reader.rate), written)
            for _ in range(due - written):
                write(before_this if not video.live and before_this is not None else pixels)
            write(pixels)
            written, before_this = due + 1, pixels
            job.summary.frames += 1
            if live and now - shown > _SHOW_EVERY:
                shown = now
                total = f" of {reader.total}" if reader.total else ""
                _status(f"{video.name}: frame {frame.number + 1}{total}, {note}")
        if reader.ended:
            _fail(job.summary, reader.ended)


def _named(path: Path, *suffixes: str) -> Path:
    """Return the path with the first suffix added, if it has none of them.

    No suffix is removed, so that a.bmp and a.jpg in one folder stay two files.
    """
    return path if path.suffix.lower() in suffixes else path.with_name(path.name + suffixes[0])


def _count(tracker: Any, watch: Watch, summary: Summary) -> None:
    from unmask.mask.runtime.detections import NOT_JUDGED_NAME

    known = (*summary.class_names, NOT_JUDGED_NAME)
    summary.add(known[track.label] for track in tracker.faces())
    summary.sightings += watch.end()
    summary.videos += 1


def refuse_mirrored(asked: bool) -> None:
    """Raise UserError for an option that was removed."""
    if asked:
        raise UserError(
            "--mirrored is gone: it took ten times as long and found nothing more",
            do="leave it out",
        )


def _fail(summary: Summary, line: str) -> None:
    summary.failures.append(line)
    _say(line)


def _say(line: str) -> None:
    say(f"unmask: {' '.join(line.split())}", file=sys.stderr)


def _status(line: str) -> None:
    say(f"\r\x1b[K{printable(line)}", end="\r", file=sys.stderr, flush=True)
