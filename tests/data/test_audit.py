"""The data audit finds what was planted: copies, leaks, wrong labels, few images, shortcuts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.data.audit import audit_data, find_shortcuts
from unmask.data.audit_duplicates import exact_duplicates, near_duplicates
from unmask.data.audit_labels import confident_errors
from unmask.data.audit_verdicts import judge_data
from unmask.data.folder import EMPTY
from unmask.data.images import Images
from unmask.data.sources import Source, load_source
from unmask.errors import UserError

NAMES = ("a", "b", "c")


def textured(n: int, seed: int = 0, side: int = 28) -> Images:
    """Images of three textures at random places and phases, easy to tell apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    y, x = np.mgrid[:side, :side]
    phase = rng.uniform(0, 6.3, (n, 1, 1))
    waves = np.stack([x, y, x + y])[labels] * 0.9 + phase
    noise = rng.normal(0, 18, (n, side, side))
    pixels = np.clip(128 + 70 * np.sin(waves) + noise, 0, 255).astype(np.uint8)
    return Images(pixels[:, None], labels.astype(np.int64), NAMES, "textures")


def source(train: Images, test: Images, warnings: tuple[str, ...] = ()) -> Source:
    return Source("pictures", train, None, test, "", warnings)


def kinds(found: object) -> dict[str, str]:
    return {v.kind: v.severity for v in found.verdicts}  # type: ignore[attr-defined]


def test_a_healthy_set_has_no_verdict() -> None:
    found = audit_data(source(textured(300), textured(90, 1)))
    assert [v for v in found.verdicts if v.severity != "note"] == []
    assert found.figures()["images"] == 390


def test_a_leak_is_an_error_and_names_both_places() -> None:
    train, test = textured(300), textured(60, 1)
    pixels, labels = test.pixels.copy(), test.labels.copy()
    pixels[:6], labels[:6] = train.pixels[9:15], train.labels[9:15]
    labels[0] = (labels[0] + 1) % 3
    found = audit_data(source(train, Images(pixels, labels, NAMES, "test")), labels=False)
    assert kinds(found)["leak"] == "error"
    assert found.figures()["leaks"] == 6
    assert [("train", 9), ("test", 0)] in found.copies
    assert found.conflicts == [[("train", 9), ("test", 0)]]


def test_nearly_equal_images_are_found_and_others_are_not() -> None:
    images = textured(400).pixels
    brighter = np.clip(images[:20].astype(int) * 0.9 + 20, 0, 255)
    noisy = np.clip(
        images[20:40] + np.random.default_rng(2).normal(0, 3, images[:20].shape), 0, 255
    )
    planted = np.concatenate([images, brighter.astype(np.uint8), noisy.astype(np.uint8)])
    pairs = {tuple(p) for p in near_duplicates(planted).tolist()}
    wanted = {(i, 400 + i) for i in range(40)}
    assert len(pairs & wanted) >= 38
    assert len(pairs - wanted) <= 2
    assert len(near_duplicates(np.zeros((5, 1, 28, 28), np.uint8))) == 0
    assert [g.tolist() for g in exact_duplicates(np.repeat(images[:2], 2, 0))] == [[0, 1], [2, 3]]


def test_flipped_labels_are_found_by_the_cross_validated_model() -> None:
    images = textured(900)
    labels = images.labels.copy()
    flipped = np.random.default_rng(3).choice(900, 45, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 3
    found = audit_data(Images(images.pixels, labels, NAMES, "flipped"), near=False)
    errors = found.label_errors["train"]
    hit = np.isin(errors.rows, flipped)
    assert hit.mean() > 0.9
    assert hit.sum() / 45 > 0.6
    assert (errors.suggested[hit] == images.labels[errors.rows[hit]]).all()
    assert kinds(found)["label errors"] == "warning"


def test_confident_learning_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.95])
    found = confident_errors(np.stack([p, 1 - p], 1), labels)
    # Thresholds: class 0 at 0.6, class 1 at (0.8 + 0.7 + 0.05) / 3.
    assert found.rows.tolist() == [5, 2]
    assert found.suggested.tolist() == [0, 1]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.8])
    assert found.accuracy == pytest.approx(4 / 6)


def test_given_probabilities_are_used_and_must_fit() -> None:
    images = textured(60)
    p = np.full((60, 3), 0.05)
    p[np.arange(60), images.labels] = 0.9
    p[7] = np.roll(p[7], 1)
    found = audit_data(images, probabilities={"train": p}, near=False)
    assert found.label_errors["train"].rows.tolist() == [7]
    assert found.label_errors["train"].images == 60
    p[:7] = np.nan
    found = audit_data(images, probabilities={"train": p}, near=False)
    assert found.label_errors["train"].rows.tolist() == [7]
    assert found.label_errors["train"].images == 53
    with pytest.raises(UserError, match=r"\[60, 3\]"):
        audit_data(images, probabilities={"train": p[:5]}, near=False)


def test_other_files_are_no_fault_and_empty_folders_are_a_class_without_images() -> None:
    beside = "skipped, not images: 3, the first 'labels.csv'"
    assert not judge_data(audit_data(textured(60), labels=False, near=False), (), [beside])
    empty = f"'zebra'{EMPTY}"
    (verdict,) = judge_data(audit_data(textured(60), labels=False, near=False), (), [beside, empty])
    assert (verdict.kind, verdict.severity) == ("empty class", "warning")
    assert "1 folder" in verdict.message
    assert "'zebra'" in verdict.message


def test_classes_that_starve_or_are_missing_and_files_left_out() -> None:
    images = textured(600)
    keep = np.flatnonzero((images.labels != 2) | (np.arange(600) < 18))
    test = images[images.labels != 1]
    found = audit_data(
        source(images[keep], test, ("broken.jpg: a damaged image",)), labels=False, near=False
    )
    assert kinds(found)["starved class"] == "warning"
    assert kinds(found)["missing class"] == "warning"
    assert "broken.jpg" in next(v.message for v in found.verdicts if v.kind == "unreadable files")


def test_a_border_that_tells_the_class_is_a_shortcut() -> None:
    images = textured(300)
    assert all(s.accuracy < 0.7 for s in find_shortcuts(images, {}) if s.name == "mean colour")
    pixels = images.pixels.copy()
    pixels[:, :, 0, :] = (images.labels * 100)[:, None, None]
    found = audit_data(Images(pixels, images.labels, NAMES, "framed"), labels=False, near=False)
    assert kinds(found)["shortcut"] in ("warning", "error")
    sizes = {"file size": 1000.0 + 500 * images.labels.astype(float)}
    assert max(s.accuracy for s in find_shortcuts(images, sizes) if s.name == "file size") > 0.95


def test_files_that_tell_the_class_are_a_shortcut(tmp_path: Path) -> None:
    """Each class comes from a camera of its own, one as larger files: no pixel says so."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / name).mkdir()
        for i in range(40):
            # By the place alone, so that the images themselves tell nothing.
            image = Image.fromarray(rng.integers(0, 255, (24, 24), np.uint8))
            exif = Image.Exif()
            exif[0x010F] = {"a": "Eyes", "b": "Lens", "c": "Iris"}[name]
            quality = 95 if name == "b" else 40
            image.save(tmp_path / name / f"{i}.jpg", quality=quality, exif=exif)
    data = load_source(str(tmp_path))
    assert data.traits["train"].shape == (120, 15)
    found = audit_data(data, labels=False, near=False)
    told = {v.subject: v for v in found.verdicts if v.kind == "shortcut"}
    assert set(told) == {"file size", "EXIF"}
    assert all(v.severity == "warning" for v in told.values())
    chosen = replace(data, train=data.train[np.arange(60)])
    assert not [v for v in audit_data(chosen, labels=False).verdicts if v.kind == "shortcut"]


def test_a_black_image_among_textures_is_an_outlier() -> None:
    images = textured(300)
    pixels = images.pixels.copy()
    pixels[17] = 0
    found = audit_data(Images(pixels, images.labels, NAMES, "one black"), labels=False, near=False)
    assert [17] in found.outliers["train"].values()
