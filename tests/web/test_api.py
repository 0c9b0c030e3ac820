"""The API by itself: what it answers, and what each kind of bad input is told."""

import numpy as np
import pytest
import torch
from PIL import Image

from made_up_detector import IMPROPER, WITH, paint
from made_up_files import bomb, encoded
from unmask.data.mnist import load_mnist
from unmask.models.classifier import Classifier, shipped

FACES = [((40, 40, 80, 80), WITH), ((120, 60, 160, 100), IMPROPER)]


def test_health_says_what_there_is(client) -> None:
    answer = client.get("/api/health")
    assert answer.status_code == 200
    said = answer.json()
    assert (said["status"], said["detector"], said["classifiers"]) == ("ok", True, shipped())


def test_detect_gives_the_painted_faces(client) -> None:
    answer = client.post("/api/detect?smallest=10", content=encoded(paint((200, 160), FACES)))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["width"], found["height"]) == (200, 160)
    boxes = sorted((tuple(map(round, f["box"])), f["label"]) for f in found["faces"])
    assert boxes == [
        ((40, 40, 80, 80), "with_mask"),
        ((120, 60, 160, 100), "mask_weared_incorrect"),
    ]


def test_detect_is_what_the_detector_says_at_another_threshold(client) -> None:
    picture = encoded(paint((200, 160), FACES))
    assert client.post("/api/detect?threshold=0.999", content=picture).json()["faces"] == []


@pytest.mark.parametrize("row", [0, 7])
def test_classify_is_what_the_classifier_says(client, row: int) -> None:
    pixels = load_mnist()[1].pixels[row]
    answer = client.post("/api/classify?model=mnist", content=encoded(Image.fromarray(pixels[0])))
    assert answer.status_code == 200
    with torch.inference_mode():
        logits = Classifier.load("mnist")(torch.from_numpy(pixels)[None].float() / 255)[0]
    sure = logits.double().softmax(0).numpy()
    said = answer.json()
    np.testing.assert_allclose(list(said["probabilities"].values()), sure, atol=1e-6)
    assert said["class"] == str(sure.argmax())


PNG = encoded(Image.new("RGB", (8, 8)))
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
BAD = {
    "no image": ("/api/detect", b"", 422, "there is no image in the request"),
    "text": ("/api/detect", b"hello", 422, "no image in a format of"),
    "an archive": ("/api/detect", b"PK\x03\x04" + b"\0" * 100, 422, "no image in a format of"),
    "a torn image": ("/api/detect", NOISE[: len(NOISE) // 2], 422, "damaged"),
    "a bomb": ("/api/detect", bomb(60_000, 60_000), 422, "too large"),
    "a bomb for the classifier": ("/api/classify", bomb(60_000, 60_000), 422, "too large"),
    "a large image": ("/api/detect", bomb(6_000, 6_000), 422, "6000 x 6000 pixels"),
    "too many bytes": ("/api/detect", b"\0" * 11_000_000, 413, "the limit is 10,485,760 bytes"),
    "no such model": ("/api/classify?model=mnst", PNG, 422, "did you mean 'mnist'?"),
    "a path for a model": ("/api/classify?model=../../x", PNG, 422, "unknown model"),
    "no number": ("/api/detect?threshold=much", PNG, 422, "threshold is not a number"),
    "not finite": ("/api/detect?smallest=nan", PNG, 422, "is not a number"),
    "out of range": ("/api/detect?threshold=2", PNG, 422, "0 to 1"),
    "no such call": ("/api/other", PNG, 404, "/api/detect"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line_of_json(client, name: str) -> None:
    path, content, status, line = BAD[name]
    answer = client.post(path, content=content)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert line in error
    assert "\n" not in error
    assert "Traceback" not in error


def test_a_form_is_told_what_to_send_instead(client) -> None:
    answer = client.post("/api/detect", files={"picture": ("a.png", PNG)})
    assert answer.status_code == 415
    assert "--data-binary" in answer.json()["error"]


def test_a_get_is_told_to_post(client) -> None:
    assert client.get("/api/detect").status_code == 405


def test_transparent_animated_and_sixteen_bit_pictures_are_answered(client) -> None:
    wide = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    for content in (
        encoded(Image.new("RGBA", (8, 8))),
        encoded(Image.new("P", (8, 8)), "GIF"),
        encoded(wide),
        encoded(Image.new("CMYK", (8, 8)), "JPEG"),
    ):
        assert client.post("/api/classify", content=content).status_code == 200
