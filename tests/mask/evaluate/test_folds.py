import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from made_up_annotations import write_picture
from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.errors import UserError
from unmask.mask.evaluate.folds import difference_hash, duplicate_groups, folds, groups
from unmask.mask.training.crops import crops, square

FACES = Path(os.environ.get("UNMASK_DATA", "../shared/data")) / "faces"
NAMES = ("often", "sometimes", "rarely")


def annotated(paths: list[Path], labels: list[list[int]]) -> AnnotatedImages:
    return AnnotatedImages(
        tuple(paths),
        np.full((len(paths), 2), 32),
        tuple(np.tile(np.array([4, 4, 20, 20], np.float32), (len(own), 1)) for own in labels),
        tuple(np.array(own, np.int64) for own in labels),
        NAMES,
        "made up",
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixty images like no other."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(60):
        write_picture(folder / f"{seed}.png", 32, 32, seed)
    return [folder / f"{seed}.png" for seed in range(60)]


label_lists = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=10, max_size=60)


@settings(max_examples=25, deadline=None)
@given(label_lists, st.integers(2, 5), st.integers(0, 3))
def test_folds_hold_every_picture_once_and_their_part_of_the_rarest(
    pictures: list[Path], labels: list[list[int]], count: int, seed: int
) -> None:
    made = annotated(pictures[: len(labels)], labels)
    dealt = folds(made, count, seed)
    assert sorted(np.concatenate([val for _, val in dealt])) == list(range(len(made)))
    for train, val in dealt:
        assert sorted([*train, *val]) == list(range(len(made)))
    order = np.argsort(made.counts, kind="stable").tolist()
    rarest = np.array([min(own, key=order.index, default=-1) for own in labels])
    for kind in (-1, 0, 1, 2):
        parts = [np.count_nonzero(rarest[val] == kind) for _, val in dealt]
        # One may be more for the round that the kind begins in, and one for where it ends.
        assert max(parts) - min(parts) <= 2
    for (_, one), (_, again) in zip(dealt, folds(made, count, seed), strict=True):
        np.testing.assert_array_equal(one, again)


def test_another_seed_deals_otherwise(pictures: list[Path]) -> None:
    made = annotated(pictures, [[0]] * 60)
    assert not np.array_equal(folds(made, 5, 0)[0][1], folds(made, 5, 1)[0][1])


def test_crowds_are_shared_out(pictures: list[Path]) -> None:
    made = annotated(pictures[:10], [[0] * (n + 1) for n in range(10)])
    for _, val in folds(made, 5):
        assert made[val].counts.tolist() == [11, 0, 0]


def test_pictures_nearly_the_same_are_dealt_out_together(
    pictures: list[Path], tmp_path: Path
) -> None:
    copies = []
    for i, path in enumerate(pictures[:10]):
        # Four bands that get brighter to the right or to the left; then other sizes and formats.
        ramp = np.linspace(20, 230, 96).astype(np.uint8)
        bands = [ramp if i >> k & 1 else ramp[::-1] for k in range(4)]
        shades = np.repeat(np.array(bands), 24, axis=0)
        Image.fromarray(shades).save(tmp_path / path.name)
        Image.fromarray(shades).resize((80 + i, 80)).save(tmp_path / f"{i}-copy.jpg", quality=92)
        copies += [tmp_path / path.name, tmp_path / f"{i}-copy.jpg"]
    made = annotated(copies, [[0], [0, 2]] * 10)
    assert duplicate_groups(made).tolist() == [i - i % 2 for i in range(20)]
    for seed in range(5):
        for _, val in folds(made, 5, seed):
            assert len(val) == 4
            assert {i ^ 1 for i in val.tolist()} == set(val.tolist())
    with pytest.raises(UserError, match="11 folds of 10 images that differ"):
        folds(made, 11)


@given(st.integers(0, 999))
def test_groups_are_the_connected_parts_of_the_graph_of_the_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Of eight places many differ in two or fewer.
    rows = rng.random((rng.integers(1, 20), 8)) < 0.5
    reach = (rows[:, None] != rows).sum(2) <= 2
    for _ in rows:
        reach = reach @ reach
    np.testing.assert_array_equal(groups(rows, 2), reach.argmax(1))
    none = np.ones(len(rows), bool)
    np.testing.assert_array_equal(groups(rows, 2, none), np.arange(len(rows)))


def test_the_difference_hash_says_where_it_gets_brighter() -> None:
    ramp = np.tile(np.arange(170, dtype=np.uint8), (160, 1))
    assert difference_hash(ramp).all()
    assert not difference_hash(ramp[:, ::-1]).any()


def test_what_cannot_be_read_is_like_no_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths[:2]:
        path.write_bytes(b"no image")
    Image.new("L", (9, 9), 7).save(paths[2])
    assert duplicate_groups(annotated(paths, [[0]] * 4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [-1, 0, 1, 4])
def test_folds_that_cannot_be_are_refused(count: int, pictures: list[Path]) -> None:
    with pytest.raises(UserError, match="folds"):
        folds(annotated(pictures[:3], [[0]] * 3), count)


def test_a_square_at_its_own_size_is_the_picture_itself() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    got = square(picture, (10, 6, 26, 22), 16, 0.0)
    np.testing.assert_array_equal(got, picture[6:22, 10:26].transpose(2, 0, 1))
    wider = square(picture, (14, 10, 22, 18), 16, 0.5)
    np.testing.assert_array_equal(wider, got)
    # The longer side counts, about the middle.
    flat = square(picture, (10, 13, 26, 15), 16, 0.0)
    np.testing.assert_array_equal(flat, got)


def test_beyond_the_edge_the_edge_goes_on() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    padded = np.pad(picture, ((9, 9), (9, 9), (0, 0)), "edge")
    got = square(picture, (-4, -6, 12, 10), 16, 0.0)
    np.testing.assert_array_equal(got, padded[3:19, 5:21].transpose(2, 0, 1))


def test_an_enlarged_square_is_part_of_the_enlarged_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = np.asarray(Image.fromarray(picture).resize((120, 120), Image.Resampling.BICUBIC))
    got = square(picture, (12, 10, 22, 20), 30, 0.0)
    np.testing.assert_array_equal(got, whole[30:60, 36:66].transpose(2, 0, 1))


def test_a_scaled_ramp_stays_a_ramp() -> None:
    ramp = np.broadcast_to(4 * np.arange(60, dtype=np.uint8)[None, :, None], (60, 60, 3))
    got = square(np.ascontiguousarray(ramp), (10, 10, 42, 42), 8, 0.0)
    # The middle of cell x lies at 10 + 4 (x + 0.5), where the ramp is 4 (position - 0.5).
    expected = 4 * (10 + 4 * (np.arange(8) + 0.5) - 0.5)
    np.testing.assert_allclose(got[0, 3], expected, atol=1)


def test_crops_belong_to_their_faces(pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    paths = [pictures[0], tmp_path / "damaged.png", pictures[1], pictures[2]]
    made = annotated(paths, [[0, 2], [1], [], [1]])
    found = crops(made, 16, 0.0)
    assert found.images.labels.tolist() == [0, 2, 1]
    assert found.picture.tolist() == [0, 0, 3]
    assert found.sides.tolist() == [16, 16, 16]
    expected = np.asarray(Image.open(pictures[2]))[4:20, 4:20].transpose(2, 0, 1)
    np.testing.assert_array_equal(found.images.pixels[2], expected)
    assert len(found.warnings) == 1
    assert "damaged.png" in found.warnings[0]
    assert found[np.array([2])].picture.tolist() == [3]
    with pytest.raises(UserError, match="no face can be cut out"):
        crops(made[[1, 2]], 16, 0.0)


@pytest.mark.data
@pytest.mark.skipif(not FACES.is_dir(), reason="the face mask set is not there")
def test_pairs_in_the_face_mask_set_are_dealt_out_together() -> None:
    faces = load_faces(FACES)
    fold = np.empty(len(faces), np.int64)
    for k, (_, val) in enumerate(folds(faces)):
        fold[val] = k
        assert 135 <= len(val) <= 155
        assert 15 <= faces[val].counts[2] <= 28
    number = {int(path.stem.removeprefix("maksssksksss")): i for i, path in enumerate(faces.paths)}
    # Pairs that look the same to the eye.
    for one, other in ((653, 775), (410, 428), (656, 690), (13, 737), (156, 545)):
        assert fold[number[one]] == fold[number[other]]
