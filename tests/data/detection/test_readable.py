"""Images that can be unpacked are told from those that can't."""

from pathlib import Path

import pytest

from made_up_annotations import MADE, write_voc
from unmask.data.detection.dataset import left_out, read_annotated, readable
from unmask.errors import UserError


def test_a_damaged_picture_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    write_voc(tmp_path, MADE)
    annotated, warnings = read_annotated(tmp_path)
    assert not warnings
    file = tmp_path / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:-2000])
    kept, told = readable(annotated)
    assert [path.name for path in kept.paths] == ["a.png", "c.png"]
    assert len(told) == 1
    assert told[0].startswith("'b.png' skipped: can't read b.png")
    assert left_out(told)
    assert not left_out(("'a.xml': 1 box cut to the image",))


def test_without_a_whole_picture_one_line_says_so(tmp_path: Path) -> None:
    write_voc(tmp_path, {"b": MADE["b"]})
    annotated, _ = read_annotated(tmp_path)
    annotated.paths[0].write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of .* can be read"):
        readable(annotated)
