"""A run's damaged state is told in one line that names the file, and nothing else is touched."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unmask.check.result import Check, compare
from unmask.coursework.sections import keep, kept
from unmask.errors import UserError
from unmask.execution.shards import read_shards, shard_file
from unmask.fool.audit.records import AttackRecord, Pairs, Shard, Worst, read_pairs, write_arrays
from unmask.fool.audit.store import Store
from unmask.fool.certify.result import Certification, CertifyPlan
from unmask.saved_state import MAX_JSON_DEPTH, check_keys, parse_json, read_arrays, read_json
from unmask.shift import measurement
from unmask.sweep import shards as sweep_shards
from unmask.sweep.history import SweepHistory
from unmask.sweep.spec import grid
from unmask.train.history import EpochFigures, History

Arrays = dict[str, NDArray[Any]]
DAMAGED = r"^this run's state is damaged: .*{}: .*; start anew with another --out, or delete it$"


def refused(read: Callable[[], object], file: Path) -> str:
    """Return the line that reading ends with, which names the file."""
    with pytest.raises(UserError, match=DAMAGED.format(re.escape(file.name))) as refusal:
        read()
    return str(refusal.value)


def npz(file: Path, arrays: Arrays) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        np.savez_compressed(opened, **arrays)  # type: ignore[arg-type]


def claiming(file: Path, shape: tuple[int, ...], stored: int = zipfile.ZIP_STORED) -> None:
    """Write an archive whose array is said to be of that shape, and isn't there."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", stored) as archive:
        archive.writestr("net.npy", header.getvalue() + b"\0" * 80)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\x00",
        "[" * 10_000 + "]" * 10_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1),
        "9" * 10_000,
    ],
)
def test_json_that_is_none_or_too_deep_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    refused(lambda: read_json(tmp_path / "x.json"), tmp_path / "x.json")


def test_json_of_the_depth_allowed_is_read(tmp_path: Path) -> None:
    text = "[" * (MAX_JSON_DEPTH - 1) + "7" + "]" * (MAX_JSON_DEPTH - 1)
    assert parse_json(text, tmp_path) == json.loads(text)


@pytest.mark.parametrize(
    ("values", "named"), [({}, "lacks 'a'"), ({"a": 1, "b": 2}, "'b'"), ([], "a list")]
)
def test_keys_are_named(values: object, named: str, tmp_path: Path) -> None:
    check_keys({"a": 1}, ("a",), tmp_path / "x")
    assert named in refused(lambda: check_keys(values, ("a",), tmp_path / "x"), tmp_path / "x")


@pytest.mark.parametrize("shape", [(1 << 43,), (1 << 62, 1 << 62), (11,), (-1,), (10, 1 << 20)])
def test_an_array_that_claims_more_than_the_file_holds_is_never_made(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    file = tmp_path / "x.npz"
    claiming(file, shape)
    refused(lambda: read_arrays(file), file)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, a=np.array([{}, []], dtype=object))
    refused(lambda: read_arrays(file), file)


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays: Arrays = {
        "zeros": np.zeros((300, 1000)),
        "none": np.zeros((0, 3), np.uint8),
        "one": np.array(3, np.int64),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "a/b": np.array([True]),
    }
    npz(tmp_path / "x.npz", arrays)
    found = read_arrays(tmp_path / "x.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1, -30])
def test_a_file_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    npz(file, {"a": np.arange(100)})
    file.write_bytes(file.read_bytes()[:cut])
    refused(lambda: read_arrays(file), file)


@pytest.mark.parametrize("name", ["000 (1).npz", "0x.npz", "1.npz", "٠٠٠.npz", "000.old.npz"])
def test_a_shard_of_a_foreign_name_is_named(name: str, tmp_path: Path) -> None:
    for file in (shard_file(tmp_path, 0), tmp_path / "000" / name):
        npz(file, {"net": np.arange(3)})
    refused(lambda: list(read_shards(tmp_path)), tmp_path / "000" / name)


def history() -> SweepHistory:
    return SweepHistory.empty(tuple(grid(depth=[1, 2], epochs=3)), (0, 2), {"key": "k"})


def header(**changes: object) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        values = json.loads(arrays["header"].tobytes()) | changes
        text = json.dumps({k: v for k, v in values.items() if v != "left out"})
        arrays["header"] = np.frombuffer(text.encode(), np.uint8)

    return change


def changed(name: str, array: NDArray[Any] | None) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays.pop(name)
        if array is not None:
            arrays[name] = array

    return change


@pytest.mark.parametrize(
    "change",
    [
        header(specs="left out"),
        header(more=1),
        header(stamp=None),
        header(probe_epochs=["x"]),
        header(probe_epochs=3),
        header(specs=[{"depth": 10**9}] * 2),
        header(specs=[{"breadth": 1}] * 2),
        header(specs=[]),
        changed("header", None),
        changed("header", np.zeros((2, 2))),
        changed("curves/train_loss", None),
        changed("curves/train_loss", np.zeros((2, 2), np.float32)),
        changed("layers/dead", np.zeros((2, 2, 3), np.float32)),
        changed("test/test_loss", np.zeros(3, np.float32)),
        changed("status", np.array([0, 9], np.uint8)),
        changed("status", np.zeros(2)),
        changed("diverged_step", np.zeros((2, 1), np.int64)),
    ],
)
def test_a_studys_history_is_checked(change: Callable[[Arrays], None], tmp_path: Path) -> None:
    file = tmp_path / "history.npz"
    history().save(file)
    assert SweepHistory.load(file).specs == history().specs
    arrays = read_arrays(file)
    change(arrays)
    npz(file, arrays)
    refused(lambda: SweepHistory.load(file), file)


def shard() -> Shard:
    whole, real = np.zeros(2, np.int64), np.zeros(2)
    worst = Worst(
        rows=np.arange(2), labels=whole, clean=whole, size=real, predicted=whole,
        confidence=real, l2=real, linf=real, similarity=real, saved=np.zeros(2, np.bool_), by=whole,
    )  # fmt: skip
    record = AttackRecord("apgd", 0.1, True, 2, 1, 1, 100, 50)
    return Shard(worst, (record,), 0, np.zeros((1, 3, 4, 4), np.uint8), np.zeros(1, np.int64))


@pytest.mark.parametrize(
    "change",
    [
        header(records="left out"),
        header(records=[{"name": "x"}]),
        header(records=7),
        header(unstable="x"),
        header(more=[]),
        changed("worst_size", None),
        changed("worst_size", np.zeros(3)),
        changed("worst_rows", np.array([0, -1])),
        changed("worst_by", np.array([0, 7])),
        changed("worst_by", np.zeros(2)),
        changed("examples", np.zeros((1, 3), np.uint8)),
        changed("example_rows", np.zeros(4, np.int64)),
        lambda arrays: arrays.update(more=np.zeros(1)),
        lambda arrays: arrays.update(worst_more=np.zeros(2)),
    ],
)
def test_an_audits_shard_is_checked(change: Callable[[Arrays], None], tmp_path: Path) -> None:
    file = tmp_path / "00000.npz"
    shard().save(file)
    assert Shard.load(file).records == shard().records
    arrays = read_arrays(file)
    change(arrays)
    npz(file, arrays)
    refused(lambda: Shard.load(file), file)


def test_an_audits_shard_that_is_a_list_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "00000.npz"
    write_arrays(file, {}, [1, 2])
    refused(lambda: Shard.load(file), file)


def test_an_audits_pairs_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "pairs-00000.npz"
    whole, real, yes = np.arange(2), np.zeros(2), np.ones(2, np.bool_)
    pairs = Pairs(whole, whole, whole, yes, yes, real, real, real)
    write_arrays(file, pairs.__dict__, None)
    np.testing.assert_array_equal(read_pairs(file).rows, pairs.rows)
    write_arrays(file, {**pairs.__dict__, "l2": np.zeros(3)}, None)
    refused(lambda: read_pairs(file), file)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"length": "quick"}',
        '{"length": "quick", "unmask": "1", "done": 3}',
        '{"length": "quick", "unmask": "1", "done": {"a": [{"name": "x"}]}}',
        '{"length": "quick", "unmask": "1", "done": {}, "more": 1}',
        '{"length": "quick", "unmask": "1", "done": ' + "[" * 10_000 + "]" * 10_000 + "}",
    ],
)
def test_a_course_reports_sections_are_checked(text: str, tmp_path: Path) -> None:
    keep(tmp_path, "quick", {})
    assert kept(tmp_path, "quick", resume=True) == {}
    file = tmp_path / "sections.json"
    file.write_text(text)
    refused(lambda: kept(tmp_path, "quick", resume=True), file)
    assert file.read_text() == text


EPOCH = {
    "epoch": 1, "step": 5, "pictures": 160, "rate": 0.1, "train_loss": 1.0, "train_accuracy": 0.5,
    "validation_loss": None, "validation_accuracy": None, "validation_averaged": None,
    "train_seconds": 1.0, "seconds": 2.0, "pictures_per_second": 160.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [7, "x", {}, {**EPOCH, "more": 1}, {**EPOCH, "seconds": None}, {**EPOCH, "epoch": 1.5},
     {**EPOCH, "train_loss": "x"}, {**EPOCH, "step": True}],
)  # fmt: skip
def test_an_epochs_figures_are_checked(values: object) -> None:
    assert EpochFigures.of(EPOCH).epoch == 1
    with pytest.raises(TypeError):
        EpochFigures.of(values)


@pytest.mark.parametrize("best", [99, -1, "x", 1.0, None])
def test_the_best_epoch_is_one_of_them(best: Any) -> None:
    with pytest.raises(ValueError, match="best epoch"):
        History((EpochFigures.of(EPOCH),), best, "finished")


def certification() -> Certification:
    counts = np.arange(3)
    return Certification(
        model="m",
        identity="i",
        data="d",
        class_names=("a", "b"),
        plan=CertifyPlan(eps=0.1),
        rows=counts,
        labels=counts % 2,
        predicted=counts % 2,
        status=np.zeros(3, np.int8),
        stage=np.zeros(3, np.int8),
        bound=np.zeros(3),
        seconds=1.0,
        stamp={},
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("status"),
        lambda a: a.update(more=np.zeros(1)),
        lambda a: a.update(status=np.full(3, 9, np.int8)),
        lambda a: a.update(stage=np.zeros(2, np.int8)),
        lambda a: a.update(bound=np.zeros(3, np.float32)),
        lambda a: a.update(rows=np.array(7)),
        lambda a: a.update(head=np.array("[]")),
        lambda a: a.update(head=np.array("[" * 10_000)),
        lambda a: a.update(head=np.array(3.0)),
    ],
)
def test_a_certification_is_checked(change: Callable[[Arrays], None], tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    certification().save(file)
    assert Certification.load(file).rows.tolist() == [0, 1, 2]
    arrays = read_arrays(file)
    change(arrays)
    npz(file, arrays)
    refused(lambda: Certification.load(file), file)
    file.write_bytes(file.read_bytes()[:-30])
    refused(lambda: Certification.load(file), file)


ROW = {"scores": [], "flips": 0.1, "smallest": None}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "\x00",
        "[" * 10_000 + "]" * 10_000,
        json.dumps({"rows": {}}),
        json.dumps({"key": {}, "rows": []}),
        json.dumps({"key": {}, "rows": {"fog": []}}),
        json.dumps({"key": {}, "rows": {"foggy": ROW}}),
        json.dumps({"key": {}, "rows": {"fog": ROW | {"scores": 3}}}),
        json.dumps({"key": {}, "rows": {"fog": ROW | {"scores": [{"images": 1}]}}}),
    ],
)
def test_a_shifts_rows_are_checked(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text(text)
    refused(lambda: measurement._Store(tmp_path, {}, True), file)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[]"])
def test_a_key_that_is_none_is_another_runs(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "shards" / "key.json"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match="are of another audit"):
        Store(tmp_path, {"a": 1}, resume=True)
    with pytest.raises(UserError, match="belongs to another sweep"):
        sweep_shards._claim(file.parent, "{}", True)
    file.unlink()
    file.mkdir()
    refused(lambda: Store(tmp_path, {"a": 1}, resume=True), file)
    refused(lambda: sweep_shards._claim(file.parent, "{}", True), file)


@pytest.mark.parametrize("text", ["[]", "\x00", "[" * 10_000, '{"verdicts": 3, "figures": {}}'])
def test_a_baseline_that_is_none_is_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    file.write_text(text)
    now = Check("m", "d", (), 1.0, 1.0)
    with pytest.raises(UserError, match=r"^the baseline is no check\.json"):
        compare(now, file)
