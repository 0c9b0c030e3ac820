import errno
import functools
import gzip
import hashlib
import http.server
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask import runtime
from unmask.data import fetch as fetch_module
from unmask.data.cards import CARDS, DatasetCard, RemoteFile
from unmask.data.fetch import fetch_dataset
from unmask.errors import UserError

CONTENT = bytes(range(256)) * 1200


@dataclass
class Behaviour:
    """How the server answers, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    says_length: bool = True
    encoding: str | None = None
    stops_after: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, behaviour: Behaviour, *arguments: object) -> None:
        self.behaviour = behaviour
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        behaviour, wanted = self.behaviour, self.headers["Range"]
        behaviour.asked.append((self.path, wanted))
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        content, start = behaviour.content, 0
        if wanted and behaviour.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if behaviour.says_length:
            self.send_header("Content-Length", str(len(content) - start))
        if behaviour.encoding:
            self.send_header("Content-Encoding", behaviour.encoding)
        self.end_headers()
        stop = behaviour.stops_after.pop(0) if behaviour.stops_after else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Site:
    """A server on this machine alone, and the card of a dataset of one file that lies on it."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *a: Handler(self.behaviour, *a)
        )
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=functools.partial(self.server.serve_forever, 0.01)).start()

    def card(self, *paths: str, names: tuple[str, ...] = ("toy.bin",)) -> DatasetCard:
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        return DatasetCard(
            name="toy",
            title="Toy",
            homepage=self.address,
            licence="none",
            citation="none",
            files=tuple(
                RemoteFile(
                    name=name,
                    urls=tuple(f"{self.address}/{p}" for p in paths or (name,)),
                    size=len(CONTENT),
                    sha256=sha256,
                )
                for name in names
            ),
        )

    @property
    def ranges(self) -> list[str | None]:
        return [wanted for _, wanted in self.behaviour.asked]


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def site(server: Site, cache: Path) -> Site:
    server.behaviour = Behaviour()
    return server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fetch_module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def files_in(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.rglob("*") if p.is_file())


def leave_part(cache: Path, content: bytes) -> None:
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "toy.bin.part").write_bytes(content)


def test_a_file_is_downloaded_once(site: Site, cache: Path) -> None:
    (path,) = fetch_dataset(site.card())
    assert path == cache / "toy" / "toy.bin"
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == ["toy.bin"]
    assert fetch_dataset(site.card()) == (path,)
    assert site.behaviour.asked == [("/toy.bin", None)]


def test_the_cache_lies_where_the_system_wants_it() -> None:
    assert fetch_module.cache_folder().is_absolute()
    assert "unmask" in fetch_module.cache_folder().parts


def test_nothing_is_printed_or_logged(
    site: Site, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fetch_dataset(site.card())
    assert capfd.readouterr() == ("", "")


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, len(CONTENT) // 4 - 1), min_size=1, max_size=4))
@pytest.mark.parametrize("says_length", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(
    says_length: bool, cuts: list[int], server: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    server.behaviour = Behaviour(stops_after=[*cuts], says_length=says_length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch_module, "cache_folder", lambda: cache)
        patch.setenv("no_proxy", "127.0.0.1")
        patch.delenv("UNMASK_DATA", raising=False)
        (path,) = fetch_dataset(server.card())
    assert path.read_bytes() == CONTENT
    starts = [sum(cuts[:k]) for k in range(1, len(cuts) + 1)]
    assert server.ranges == [None, *(f"bytes={start}-" for start in starts)]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site: Site, cache: Path) -> None:
    step = 1000
    site.behaviour.stops_after = [step] * fetch_module.ROUNDS
    got = fetch_module.ROUNDS * step
    with pytest.raises(UserError, match=f"got {got} of {len(CONTENT)} bytes before the connection"):
        fetch_dataset(site.card())
    assert files_in(cache) == ["toy.bin.part"]
    site.behaviour.asked.clear()
    (path,) = fetch_dataset(site.card())
    assert path.read_bytes() == CONTENT
    assert site.ranges == [f"bytes={got}-"]


def test_an_interrupted_download_goes_on_too(site: Site, cache: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_dataset(site.card(), progress=interrupt)
    (part,) = cache.rglob("*.part")
    had = part.stat().st_size
    assert had > 0
    assert fetch_dataset(site.card())[0].read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={had}-"]


def test_killed_at_any_write_it_leaves_nothing_but_the_file(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moments: list[Path] = []
    fsync, replace = os.fsync, Path.replace

    def photograph() -> None:
        moments.append(tmp_path / f"moment-{len(moments)}")
        shutil.copytree(cache, moments[-1])

    def forced(number: int) -> None:
        photograph()
        fsync(number)

    def renamed(self: Path, target: Path) -> Path:
        photograph()
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(Path, "replace", renamed)
    fetch_dataset(site.card())
    monkeypatch.undo()
    monkeypatch.setattr(fetch_module, "cache_folder", lambda: cache)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert len(moments) == 2
    for moment in moments:
        shutil.rmtree(cache)
        shutil.copytree(moment, cache)
        assert len(files_in(cache)) == 2
        runtime._swept.clear()
        # All of it had come.
        site.behaviour.asked.clear()
        assert fetch_dataset(site.card())[0].read_bytes() == CONTENT
        assert site.behaviour.asked == []
        assert files_in(cache) == ["toy.bin"]


def test_a_full_disk_keeps_what_was_downloaded(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(UserError, match="No space left"):
            fetch_dataset(site.card())
    assert files_in(cache) == ["toy.bin.part"]
    assert fetch_dataset(site.card())[0].read_bytes() == CONTENT
    assert len(site.behaviour.asked) == 1


def test_a_server_without_ranges_is_read_from_the_start(site: Site, cache: Path) -> None:
    site.behaviour.ranges = False
    leave_part(cache, CONTENT[:5000])
    assert fetch_dataset(site.card())[0].read_bytes() == CONTENT
    assert site.ranges == ["bytes=5000-"]


@pytest.mark.parametrize(
    "part", [b"?" * 5000, b"?" * len(CONTENT), CONTENT + b"?"], ids=["short", "whole", "long"]
)
def test_a_part_of_something_else_is_thrown_away(part: bytes, site: Site, cache: Path) -> None:
    leave_part(cache, part)
    assert fetch_dataset(site.card())[0].read_bytes() == CONTENT
    assert files_in(cache) == ["toy.bin"]


def test_a_whole_part_is_not_asked_for_again(site: Site, cache: Path) -> None:
    leave_part(cache, CONTENT)
    assert fetch_dataset(site.card())[0].read_bytes() == CONTENT
    assert site.behaviour.asked == []


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT + b"?"], ids=["same size", "longer"])
def test_another_file_than_the_card_says_is_refused(
    content: bytes, site: Site, cache: Path
) -> None:
    site.behaviour.content = content
    with pytest.raises(UserError, match=r"can't download toy\.bin .*: got a file with another SHA"):
        fetch_dataset(site.card())
    assert files_in(cache) == []


def test_a_shorter_file_than_the_card_says_is_refused(site: Site, cache: Path) -> None:
    site.behaviour.content = CONTENT[:7000]
    with pytest.raises(UserError, match=r"can't download toy\.bin of Toy: got "):
        fetch_dataset(site.card())
    assert "toy.bin" not in files_in(cache)
    assert "bytes=7000-" in site.ranges  # It did ask for more, and was told that there is none.


def test_a_damaged_file_in_the_cache_is_replaced(site: Site, cache: Path) -> None:
    (path,) = fetch_dataset(site.card())
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch_dataset(site.card()) == (path,)
    assert path.read_bytes() == CONTENT


def test_the_next_mirror_is_tried(site: Site) -> None:
    (path,) = fetch_dataset(site.card("gone", "toy.bin"))
    assert path.read_bytes() == CONTENT
    assert [asked for asked, _ in site.behaviour.asked] == ["/gone", "/toy.bin"]


def test_a_file_that_is_gone_is_said_to_be(site: Site) -> None:
    with pytest.raises(UserError, match="got the answer 404 Not Found; fetch http"):
        fetch_dataset(site.card("gone"))
    assert len(site.behaviour.asked) == 1


def test_a_compressed_file_is_not_unpacked_on_the_way(site: Site) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    site.behaviour.content, site.behaviour.encoding = packed, "gzip"
    file = RemoteFile(
        "toy.gz", (f"{site.address}/toy.gz",), len(packed), hashlib.sha256(packed).hexdigest()
    )
    card = DatasetCard("toy", "Toy", site.address, "none", "none", (file,))
    assert fetch_dataset(card)[0].read_bytes() == packed


def test_without_a_network_the_error_says_what_to_do(site: Site, cache: Path) -> None:
    refused = Site()
    refused.server.shutdown()
    refused.server.server_close()
    with pytest.raises(UserError) as caught:
        fetch_dataset(refused.card())
    assert str(caught.value) == (
        "can't download toy.bin of Toy: got no connection; "
        f"fetch {refused.address}/toy.bin by hand and put it into {cache / 'toy'}, "
        "or set UNMASK_DATA to the folder that holds it"
    )
    (cache / "toy" / "toy.bin").write_bytes(b"put here by hand, but wrong")
    with pytest.raises(UserError, match="no connection, and the file already there has another"):
        fetch_dataset(refused.card())
    (cache / "toy" / "toy.bin").write_bytes(CONTENT)
    assert fetch_dataset(refused.card())[0].read_bytes() == CONTENT


def test_a_server_that_says_nothing_is_not_waited_for_forever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "READ_SECONDS", 0.05)
    release = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda self: release.wait(10))
    with pytest.raises(UserError, match="got no answer in time"):
        fetch_dataset(site.card())
    release.set()


def test_a_cache_that_can_not_be_written_is_said_to_be(site: Site, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(
        UserError, match=rf"can't write to {re.escape(str(cache))}.*: got Not a dir"
    ):
        fetch_dataset(site.card())


def test_progress_counts_the_bytes_of_all_files(site: Site) -> None:
    seen: list[tuple[int, int]] = []
    site.behaviour.stops_after = [100_000]
    card = site.card(names=("a.bin", "b.bin"))
    fetch_dataset(card, progress=lambda *counts: seen.append(counts))
    total = 2 * len(CONTENT)
    done = [d for d, _ in seen]
    assert {t for _, t in seen} == {total}
    assert done == sorted(done)
    assert len(CONTENT) in done
    assert done[-1] == total


@pytest.mark.parametrize("place", ["toy.bin", "toy/toy.bin"])
def test_the_users_own_folder_comes_first(
    place: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / place
    own.parent.mkdir(parents=True)
    own.write_bytes(CONTENT)
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path / "own"))
    assert fetch_dataset(site.card()) == (own,)
    assert site.behaviour.asked == []
    own.write_bytes(CONTENT[1:])
    with pytest.raises(UserError, match="isn't the file of Toy: got another SHA-256; delete it"):
        fetch_dataset(site.card())
    assert own.read_bytes() == CONTENT[1:]
    own.unlink()
    assert fetch_dataset(site.card())[0].read_bytes() == CONTENT


def test_the_users_own_folder_must_be_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"UNMASK_DATA must name a folder: got .*nowhere"):
        fetch_dataset(site.card())


def test_a_dataset_behind_an_account_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="kaggle datasets download andrewmvd/face-mask-detection"):
        fetch_dataset(CARDS["face-mask-detection"])
