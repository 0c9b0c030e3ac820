import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image, ImageCms

from made_up_detector import IMPROPER, NAMES, UNSURE, WITH, WITHOUT, build, paint
from unmask.errors import UserError
from unmask.mask.runtime import detector as module
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.views import View
from unmask.runtime import cpu_threads

FACES = [
    ((100, 100, 140, 150), WITH),
    ((300, 200, 320, 226), WITHOUT),
    ((0, 0, 50, 60), IMPROPER),
    ((500, 400, 640, 480), UNSURE),
]


def by_place(found: Detections) -> dict[tuple[int, ...], str]:
    boxes = (tuple(round(x) for x in box) for box in found.boxes.tolist())
    return dict(zip(boxes, found.names(), strict=True))


EXPECTED = dict(zip([b for b, _ in FACES], (*NAMES[:2], NAMES[2], "not_judged"), strict=True))


def test_faces_classes_and_probabilities_are_those_painted(detector: MaskDetector) -> None:
    found = detector.detect(paint((640, 480), FACES))
    assert by_place(found) == EXPECTED
    assert (found.width, found.height) == (640, 480)
    order = [by_place(found)[b] for b in by_place(found)]
    painted = {n: c for (_, c), n in zip(FACES, EXPECTED.values(), strict=True)}
    colours = np.array([painted[name] for name in order], float)
    np.testing.assert_allclose(found.scores, colours.sum(1) / 255, atol=1e-5)
    np.testing.assert_allclose(
        found.probabilities, colours / colours.sum(1, keepdims=True), atol=1e-5
    )
    assert (np.diff(found.scores) <= 0).all()


def test_a_file_a_picture_and_an_array_are_seen_alike(
    detector: MaskDetector, tmp_path: Path
) -> None:
    picture = paint((640, 480), FACES)
    picture.save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), picture, np.asarray(picture)):
        assert by_place(detector.detect(image)) == EXPECTED


def test_bytes_file_objects_and_lists_are_taken(detector: MaskDetector, tmp_path: Path) -> None:
    picture = paint((640, 480), FACES)
    path = tmp_path / "a.png"
    picture.save(path)
    data = path.read_bytes()
    with path.open("rb") as file:
        found = detector.detect([data, io.BytesIO(data), file, path, picture])
    assert [by_place(one) for one in found] == [EXPECTED] * 5
    assert detector.detect([]) == []
    for wrong in (io.StringIO("text"), 7, [7]):
        with pytest.raises(UserError):
            detector.detect(wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["exif", "I;16", "F", "LAB", "LA", "PA", "1", "CMYK"])
def test_an_image_in_memory_gives_what_its_file_gives(
    detector: MaskDetector, tmp_path: Path, kind: str
) -> None:
    picture = paint((160, 120), [((40, 40, 80, 90), (180, 180, 180))])
    options = {}
    if kind == "exif":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    elif kind == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) << 8)
    elif kind == "F":
        picture = picture.convert("F")
    elif kind == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    elif kind == "PA":
        picture = picture.convert("P").convert("PA")
    else:
        picture = picture.convert(kind)
    path = tmp_path / ("a.png" if kind in ("exif", "LA", "PA") else "a.tif")
    (picture.convert("RGBA") if kind == "PA" else picture).save(path, **options)
    answers = []
    for image in (path, Image.open(path), picture if kind != "exif" else path.read_bytes()):
        if kind == "F":
            with pytest.raises(UserError, match="floating-point values, of which the range is"):
                detector.detect(image)
            continue
        found = detector.detect(image)
        answers.append((found.boxes.round(2).tolist(), (found.width, found.height)))
    assert kind == "F" or answers[0] == answers[1] == answers[2]


def test_a_damaged_image_that_pillow_opened_is_one_line(
    detector: MaskDetector, tmp_path: Path
) -> None:
    noise = Image.effect_noise((99, 99), 90).convert("RGB")
    noise.save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:-9000])
    with Image.open(tmp_path / "a.bmp") as opened, pytest.raises(UserError, match="can't be read"):
        detector.detect(opened)


def test_threads_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = cpu_threads()
    for asked, given in (("1", 1), ("", cores), ("0", cores), ("many", cores), ("9999", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert module._threads() == given


def test_a_large_image_tells_how_far_it_is(detector: MaskDetector) -> None:
    told: list[tuple[int, int]] = []
    detector.detect(paint((900, 700), FACES), smallest=8, progress=lambda *at: told.append(at))
    assert told == [(i + 1, len(told)) for i in range(len(told))]
    assert len(told) > 4


def test_boxes_of_noise_are_bounded(
    detector: MaskDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BOXES", 2)
    kept = detector.detect(paint((640, 480), FACES), threshold=0.01)
    assert {tuple(box) for box in kept.boxes.round().tolist()} <= set(EXPECTED)
    assert len(kept) == 2
    assert kept.scores.min() >= sorted(sum(c) / 255 for _, c in FACES)[1] - 1e-5


def test_a_picture_stored_on_its_side_is_seen_upright(
    detector: MaskDetector, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    paint((640, 480), FACES).rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    assert by_place(detector.detect(tmp_path / "a.png")) == EXPECTED


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16"])
def test_every_kind_of_colours_is_seen(detector: MaskDetector, tmp_path: Path, mode: str) -> None:
    # Grey: every class has the same score, so that only boxes can be told.
    picture = paint((200, 160), [((40, 40, 80, 90), (180, 180, 180))]).convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) << 8)
    elif mode != "L":
        picture = picture.convert("RGB").convert(mode)
    picture.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(detector.detect(tmp_path / "a.tif").boxes, [[40, 40, 80, 90]])


def test_of_an_animation_the_first_frame_is_seen(detector: MaskDetector, tmp_path: Path) -> None:
    frames = [paint((100, 100), [((x, 20, x + 40, 60), WITH)]) for x in (10, 50)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(detector.detect(tmp_path / "a.gif").boxes, [[10, 20, 50, 60]])


def test_tiles_find_small_faces_and_the_whole_finds_large_ones(detector: MaskDetector) -> None:
    faces = [
        ((700, 500, 712, 514), WITH),
        ((1500, 1100, 1514, 1116), WITHOUT),
        ((950, 60, 1040, 150), IMPROPER),
        ((100, 300, 620, 1000), WITH),
    ]
    found = by_place(detector.detect(paint((1600, 1200), faces)))
    assert len(found) == 4
    names = {WITH: NAMES[0], WITHOUT: NAMES[1], IMPROPER: NAMES[2]}
    for box, colour in faces:
        near = [b for b in found if max(abs(p - q) for p, q in zip(b, box, strict=True)) <= 2]
        assert [found[b] for b in near] == [names[colour]]


def test_a_face_is_found_once_wherever_the_tiles_meet(detector: MaskDetector) -> None:
    for left in (480, 560, 601):
        box = (left, left - 200, left + 70, left - 120)
        found = detector.detect(paint((1100, 700), [(box, WITH)]))
        assert len(found) == 1
        assert np.abs(found.boxes[0] - box).max() <= 2


def test_a_picture_may_be_seen_smaller_or_larger(detector: MaskDetector) -> None:
    picture = paint((640, 480), FACES)
    for smallest in (5.0, 20.0):
        found = detector.detect(picture, smallest=smallest)
        assert len(found) == 4
        for box in FACES:
            assert np.abs(found.boxes - box[0]).max(1).min() <= 2


@pytest.mark.parametrize(
    ("size", "smallest", "seen"),
    [
        ((320, 240), 10.0, 512),
        ((512, 200), 10.0, 640),
        ((640, 480), 10.0, 640),
        ((200, 900), 10.0, 200),
        ((640, 480), 5.0, 1280),
        ((320, 240), 16.0, 320),
    ],
)
def test_small_pictures_are_enlarged_as_the_file_asks_and_no_larger_than_enough(
    tmp_path: Path, size: tuple[int, int], smallest: float, seen: int
) -> None:
    detector = MaskDetector.load(build(tmp_path / "d.onnx", scale="1.6"))
    looks = []
    network_input = module.network_input

    def noted(picture: Image.Image, view: View) -> object:
        looks.append(view.width / (view.right - view.left) * size[0])
        return network_input(picture, view)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "network_input", noted)
        detector.detect(Image.new("RGB", size), smallest=smallest)
    # As wide as the whole image would be at the scale of the finest tiles.
    assert max(looks) == pytest.approx(seen, abs=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 31), (31, 64)])
def test_any_size_of_picture_can_be_seen(detector: MaskDetector, size: tuple[int, int]) -> None:
    assert len(detector.detect(Image.new("RGB", size))) == 0


def test_the_threshold_is_of_the_score(detector: MaskDetector) -> None:
    picture = paint((640, 480), FACES)
    assert len(detector.detect(picture, threshold=0.9)) == 3
    assert len(detector.detect(picture, threshold=1.0)) == 0


def test_calibration_is_applied_as_the_file_says(tmp_path: Path) -> None:
    file = build(
        tmp_path / "a.onnx",
        calibration='{"slope": 0.5, "offset": -1, "temperature": 2}',
        thresholds='{"face": 0.1, "certain": 0.6, "smallest": 30}',
    )
    detector = MaskDetector.load(file)
    found = detector.detect(paint((640, 480), FACES))
    total = sum(WITH) / 255
    logit = 0.5 * np.log(total / (1 - total)) - 1
    sure = found.scores[found.labels >= 0]
    np.testing.assert_allclose(sure, 1 / (1 + np.exp(-logit)), rtol=1e-3)
    roots = np.sqrt(np.array(sorted(WITH)))
    np.testing.assert_allclose(np.sort(found.probabilities[0]), roots / roots.sum(), rtol=1e-3)
    # 20 x 26 pixels are too small to judge here.
    assert by_place(found)[FACES[1][0]] == "not_judged"
    # A threshold is of the calibrated score.
    assert len(detector.detect(paint((640, 480), FACES), threshold=float(sure[0]) + 0.01)) == 0
    assert len(detector.detect(paint((640, 480), FACES), threshold=float(sure[0]) - 0.01)) == 3


def test_without_a_detector_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "WEIGHTS", tmp_path / "none.onnx")
    with pytest.raises(UserError, match="this installation holds no detector"):
        MaskDetector.load()
    with pytest.raises(UserError, match="there is no such detector"):
        MaskDetector.load(tmp_path / "other.onnx")


def test_another_file_is_no_detector(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [1])],
        [helper.make_tensor_value_info("y", 1, [1])],
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(other, tmp_path / "other.onnx")
    build(tmp_path / "nameless.onnx", class_names="[]")
    for name in ("noise", "other", "nameless"):
        with pytest.raises(UserError, match=rf"{name}.onnx is no detector of faces") as error:
            MaskDetector.load(tmp_path / f"{name}.onnx")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0.0}, "the threshold must lie in 0 to 1: got 0.0"),
        ({"threshold": float("nan")}, "the threshold must lie in 0 to 1: got nan"),
        ({"smallest": 0.5}, "the smallest face has one pixel or more"),
        ({"smallest": float("inf")}, "the smallest face has one pixel or more"),
    ],
)
def test_numbers_out_of_range_are_refused(
    detector: MaskDetector, options: dict[str, float], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        detector.detect(Image.new("RGB", (9, 9)), **options)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(detector: MaskDetector, array: np.ndarray) -> None:
    with pytest.raises(UserError, match="an array must be uint8"):
        detector.detect(array)


def test_neither_torch_nor_matplotlib_is_imported(rectangles: Path) -> None:
    code = (
        "import sys, numpy; from unmask.mask.runtime.detector import MaskDetector; "
        f"found = MaskDetector.load({str(rectangles)!r}).detect(numpy.zeros((9, 9, 3), 'uint8')); "
        "print(len(found), [m for m in ('torch', 'matplotlib', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
