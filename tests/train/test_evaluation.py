"""Evaluation figures against SciPy and counts by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.train.evaluation import evaluate, logits_of, matched


class Table(nn.Module):
    """Says the logits that the first pixel of an image is the row of."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[(x[:, 0, 0, 0] * 255).round().long()]  # type: ignore[index, operator]


def rows(labels: list[int], classes: int) -> Images:
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return Images(pixels, np.array(labels), tuple("abcdef"[:classes]), "rows")


def test_figures_are_those_counted_by_hand() -> None:
    # Odds of 3:1 and 1:1 and 9:1 between two classes, in logits.
    three, nine = float(np.log(3)), float(np.log(9))
    model = Table([[three, 0], [0, three], [nine, 0], [0, nine], [nine, 0]])
    found = evaluate(model, rows([0, 0, 0, 1, 1], 2), stamp={"seed": 1})
    assert found.confusion.tolist() == [[2, 1], [1, 1]]
    assert found.accuracy == 0.6
    assert found.recall.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert found.precision.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert found.f1.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.confidence.tolist() == pytest.approx([0.75, 0.75, 0.9, 0.9, 0.9])
    assert found.loss == pytest.approx(-np.mean(np.log([0.75, 0.25, 0.9, 0.9, 0.1])))
    # Two bins: of confidence 0.75 half are right, of 0.9 two in three.
    assert found.calibration_error == pytest.approx(2 / 5 * 0.25 + 3 / 5 * abs(0.9 - 2 / 3))
    assert found.worst(1).tolist() == [4]
    assert found.worst(9).tolist() == [4, 1]
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["accuracy"] == 0.6
    assert plain["macro_f1"] == found.macro_f1


def test_a_class_without_pictures_has_no_figures_but_is_no_error() -> None:
    found = evaluate(Table([[1.0, 0, 0], [0, 1.0, 0]]), rows([0, 1], 3))
    assert np.isnan(found.recall).tolist() == [False, False, True]
    assert found.as_dict()["recall"] == [1, 1, None]
    assert found.macro_f1 == 1


def test_who_always_says_the_most_frequent_class_has_a_low_macro_f1() -> None:
    # Of n images f are of that class: its F1 is 2f / (n + f), the other's 0.
    found = evaluate(Table([[1.0, 0]] * 10), rows([0] * 8 + [1] * 2, 2))
    assert found.accuracy == 0.8
    assert found.macro_f1 == pytest.approx(16 / 18 / 2)


def test_averaged_views_are_the_mean_of_the_models_logits(
    shapes: Images, make: Callable[..., Classifier]
) -> None:
    model, few = make().eval(), shapes[:10]
    pixels = torch.from_numpy(few.pixels).float() / 255
    with torch.no_grad():
        both = (model(pixels) + model(pixels.flip(3))) / 2
        moved = [
            np.pad(few.pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")[
                :, :, d : d + 12, d : d + 12
            ]
            for d in (0, 1, 2)
        ]
        views = [torch.from_numpy(m[..., ::s].copy()).float() / 255 for m in moved for s in (1, -1)]
        six = torch.stack([model(v) for v in views]).mean(0)
    torch.testing.assert_close(logits_of(model, few, test_time="flip"), both)
    torch.testing.assert_close(logits_of(model, few, test_time="flip_shift"), six)


def test_the_batch_size_changes_nothing(shapes: Images, make: Callable[..., Classifier]) -> None:
    model = make().train()
    small, large = (logits_of(model, shapes, batch_size=b) for b in (7, 1000))
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)
    assert model.training, "the model gets its own mode back"


def test_labels_are_numbered_as_the_model_numbers_them() -> None:
    images = rows([0, 1, 1], 2)
    found = matched(images, ("c", "b", "a"))
    assert [found.class_names[k] for k in found.labels] == ["a", "b", "b"]
    with pytest.raises(UserError, match="rows has classes that the model doesn't know: got b;"):
        matched(images, ("a", "c"))


def test_classes_that_are_numbers_are_the_models_places() -> None:
    # The order of folders named by numbers is that of their texts.
    images = replace(rows([0, 1, 2, 2], 3), class_names=("0", "10", "2"))
    names = tuple("abcdefghijk")
    assert matched(images, names).labels.tolist() == [0, 10, 2, 2]
    with pytest.raises(UserError, match="doesn't know"):
        matched(images, names[:10])
    # Digits as names, as MNIST's, are names first.
    assert matched(
        replace(rows([0, 1], 2), class_names=("0", "1")), ("1", "0")
    ).labels.tolist() == [1, 0]


def test_pictures_of_other_classes_are_refused() -> None:
    with pytest.raises(UserError, match="2 classes of rows"):
        evaluate(Table([[0.0, 1, 2]]), rows([0], 2))
    with pytest.raises(UserError, match="no images"):
        evaluate(Table([[0.0, 1]]), rows([0], 2)[:0])


def test_logits_that_predict_no_class_are_one_line() -> None:
    nan = Table([[0.0, float("nan")], [1.0, 2.0]])
    with pytest.raises(UserError, match="NaN or infinity for 1 of 2 images"):
        evaluate(nan, rows([0, 1], 2))
    # A class that is ruled out is no fault.
    assert evaluate(Table([[0.0, -float("inf")]]), rows([0], 2)).accuracy == 1


def test_names_arrays_and_folders_are_read_as_everywhere(tmp_path: Path) -> None:
    pixels = np.zeros((4, 1, 28, 28), np.uint8)
    found = evaluate("mnist", (pixels, np.array([1, 2, 1, 2])))
    assert len(found.labels) == 4
    with pytest.raises(UserError, match="unknown model"):
        evaluate("mnits", (pixels, np.array([1, 2, 1, 2])))
    # A folder of some of the model's classes, at another size.
    for name in ("7", "9"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name / "0.png")
    assert sorted(evaluate("mnist", tmp_path).labels) == [7, 9]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": lambda x: x}, "must be a torch.nn.Module.*got function"),
        ({"test_time": "x"}, "unknown test-time augmentation"),
        ({"precision": "fp8"}, "did you mean 'fp32'"),
    ],
)
def test_wrong_arguments_get_one_line(shapes: Images, change, line: str) -> None:
    with pytest.raises(UserError, match=line):
        evaluate(**{"model": nn.Flatten(), "images": shapes, **change})
