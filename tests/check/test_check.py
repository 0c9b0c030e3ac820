"""The check on models whose faults are known, what other programs read, baselines, a short time."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.check.order import other_order
from unmask.check.questions import QUESTIONS, Question, ask_audit
from unmask.check.result import Check, Part, compare, failing
from unmask.check.subject import Answer, Skipped, Subject
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.errors import UserError
from unmask.report.model_check import check_page
from unmask.report.verdicts import junit, sarif
from unmask.shift.target import as_target, batch_size_of
from unmask.verdict import Verdict

NAMES = ("red", "green", "blue")
FEW = ("preflight", "accuracy", "data")


def coloured(n: int = 240, seed: int = 0, side: int = 12) -> Images:
    """Images of one colour in front of noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = rng.integers(40, 120, (n, 3, side, side))
    pixels[np.arange(n), labels] += 90
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), NAMES, "colours")


class Colours(nn.Module):
    """A small convolution network whose answer is the strongest channel."""

    def __init__(self, sharp: float = 12.0) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.convolution.weight.copy_(sharp * torch.eye(3)[:, :, None, None])
            self.convolution.bias.zero_()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.convolution(pixels).mean((2, 3))


class Swapped(Colours):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.flip(1))


def errors(check: Check) -> set[str]:
    return {v.kind for v in check.verdicts if v.severity == "error"}


def test_a_healthy_model_has_no_error_and_every_question_is_accounted_for(tmp_path: Path) -> None:
    source = Source("pictures", coloured(90, 1), None, coloured(), "")
    found = unmask.check(Colours(), source, minutes=0.5)
    # Here the colour is the class.
    assert errors(found) <= {"shortcut"}
    names = [p.name for p in found.parts]
    assert names == ["preflight", "accuracy", "data", "flow", "shift", "audit", "certificate"]
    assert all(p.status == "done" or p.reason for p in found.parts)
    (shift,) = (p for p in found.parts if p.name == "shift")
    assert shift.reason.startswith(f"{len(shift.tried)} of ")
    assert found.figures()["accuracy.accuracy"] == 1
    paths = found.save(tmp_path)
    assert [p.name for p in paths] == [
        "report.html",
        "check.json",
        "check.sarif",
        "check.junit.xml",
    ]
    assert compare(found, tmp_path / "check.json").worse == []


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (Swapped(), "preprocessing"),
        (Colours(12_000.0), "saturated logits"),
        (lambda x: torch.full((len(x), 3), float("nan")), "logits not finite"),
        (lambda x: torch.zeros(len(x), 3) + torch.tensor([1.0, 0, 0]), "no better than chance"),
    ],
)
def test_a_broken_model_is_named(model: object, kind: str) -> None:
    found = unmask.check(model, coloured(), minutes=0.5, questions=FEW)
    assert kind in errors(found)


def test_a_leak_and_flipped_labels_are_named() -> None:
    train, test = coloured(300, 1), coloured()
    pixels, labels = test.pixels.copy(), test.labels.copy()
    pixels[:24], labels[:24] = train.pixels[:24], train.labels[:24]
    flipped = np.arange(100, 124)
    labels[flipped] = (labels[flipped] + 1) % 3
    source = Source("pictures", train, None, Images(pixels, labels, NAMES, "t"), "")
    found = unmask.check(Colours(), source, minutes=0.5, questions=FEW)
    assert "leak" in errors(found)
    doubted = next(v for v in found.verdicts if v.kind == "label errors")
    assert doubted.subject == "test"
    assert doubted.evidence["fraction"] == pytest.approx(0.1, abs=0.01)


def test_labels_are_doubted_only_where_that_can_be_trusted() -> None:
    """A model's own mistakes, logits without a scale and a model fed wrongly accuse no label."""
    images = coloured(400)
    rng = np.random.default_rng(5)
    pixels = images.pixels.astype(int)
    # Where it is unsure it is wrong: a tenth of the images hardly shows its colour.
    faint = rng.choice(400, 80, replace=False)
    pixels[faint, images.labels[faint]] -= 88
    hard = Images(pixels.clip(0, 255).astype(np.uint8), images.labels, NAMES, "faint colours")
    for model in (Colours(), Colours(12_000.0), Swapped()):
        found = unmask.check(model, hard, minutes=0.5, questions=FEW)
        assert [
            v for v in found.verdicts if v.kind == "label errors" and v.severity != "note"
        ] == []


def test_a_few_logits_that_are_not_finite_leave_the_rest_to_be_asked() -> None:
    inner = Colours()

    def model(pixels: Tensor) -> Tensor:
        logits = inner(pixels)
        logits[pixels[:, 0, 0, 0] < 0.165] = float("nan")
        return logits.detach()

    found = unmask.check(model, coloured(), minutes=0.5, questions=FEW)
    assert "logits not finite" in errors(found)
    assert {p.name: p.status for p in found.parts} == dict.fromkeys(FEW, "done")
    assert 0.5 < found.figures()["accuracy.accuracy"] < 1


def test_a_slow_model_ends_in_one_line_each_within_the_time() -> None:
    def stuck(pixels: Tensor) -> Tensor:
        time.sleep(3)
        return torch.zeros(len(pixels), 3)

    start = time.perf_counter()
    found = unmask.check(stuck, coloured(), minutes=0.01, questions=("preflight", "accuracy"))
    assert time.perf_counter() - start < 2.5
    preflight, accuracy = found.parts
    assert "did not end" in preflight.reason
    assert accuracy.status == "skipped"
    assert found.unanswered


def test_a_black_box_is_asked_what_can_be_asked() -> None:
    inner = Colours()

    def model(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return inner(pixels)

    found = unmask.check(model, coloured(), minutes=0.5, questions=("flow", "certificate"))
    assert {p.name: p.status for p in found.parts} == {
        "preflight": "done",
        "flow": "skipped",
        "certificate": "skipped",
    }
    assert "black box" in next(p.reason for p in found.parts if p.name == "flow")


def test_what_cannot_be_asked_leaves_its_time_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, float] = {}

    def ask(subject: Subject, seconds: float) -> Answer:
        given[subject.target.name] = seconds
        return {}, []

    monkeypatch.setitem(QUESTIONS, "shift", Question(ask, QUESTIONS["shift"].weight))
    model = Colours()
    for one in (model, model.forward):
        unmask.check(one, coloured(30), minutes=1, questions=("shift", "certificate"))
    white, black = given.values()
    assert 55 < black <= 60
    weights = [QUESTIONS[n].weight for n in ("shift", "certificate")]
    assert white == pytest.approx(black * weights[0] / sum(weights), rel=0.1)


def test_a_slow_model_is_attacked_with_less() -> None:
    subject = Subject(as_target(Colours()), coloured(), coloured(), 0, per_image=0.05)
    # Eight images take 72 seconds with the one attack and a quarter with the other.
    figures, _ = ask_audit(subject, 30)
    assert subject.notes == ["13 images, apgd-ce alone"]
    assert figures["images"] == 13
    with pytest.raises(Skipped, match="enough for 4 images"):
        ask_audit(subject, 10)


def test_a_model_that_raises_or_a_budget_too_small_leaves_one_line_each() -> None:
    def raising(pixels: Tensor) -> Tensor:
        raise RuntimeError("no weights here")

    found = unmask.check(raising, coloured(), minutes=0.5, questions=FEW)
    by_name = {p.name: p for p in found.parts}
    assert by_name["preflight"].status == "failed"
    assert "no weights here" in by_name["preflight"].reason
    assert by_name["accuracy"].status == "skipped"
    assert by_name["data"].status == "done"
    hurried = unmask.check(Colours(), coloured(), minutes=1e-6)
    assert all(p.status == "skipped" and "over" in p.reason for p in hurried.parts)
    with pytest.raises(UserError, match="minutes"):
        unmask.check(Colours(), coloured(), minutes=0)
    with pytest.raises(UserError, match="did you mean 'audit'"):
        unmask.check(Colours(), coloured(), questions=("audits",))


def test_one_image_or_one_class_is_asked_what_can_be_asked() -> None:
    images = coloured(90)
    for few in (images[:1], images[np.flatnonzero(images.labels == 0)]):
        found = unmask.check(Colours(), few, minutes=0.5, questions=(*FEW, "flow"))
        assert all(p.status in ("done", "skipped") for p in found.parts)
        assert found.parts[0].status == "done"
        assert found.figures()["accuracy.accuracy"] == 1
    assert "missing class" in {v.kind for v in found.verdicts}


@pytest.mark.parametrize(
    ("shape", "classes", "match"),
    [
        ((1, 12, 12), NAMES, "can't take images of shape"),
        ((3, 12, 12), (*NAMES, "violet"), "tells 3 classes apart"),
    ],
)
def test_what_does_not_fit_fails_the_preflight_in_one_line(
    shape: tuple[int, int, int], classes: tuple[str, ...], match: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, *shape)).astype(np.uint8)
    labels = (np.arange(40) % len(classes)).astype(np.int64)
    found = unmask.check(Colours(), Images(pixels, labels, classes, "misfits"), questions=FEW)
    assert match in found.unanswered
    assert "\n" not in found.unanswered
    assert {p.name: p.status for p in found.parts} == {
        "preflight": "failed",
        "accuracy": "skipped",
        "data": "done",
    }


def test_a_class_that_the_model_does_not_know_and_an_archive_in_an_archive(tmp_path: Path) -> None:
    for name in ("3", "violet"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            array = np.full((28, 28), 40 * i, np.uint8)
            array[i : i + 9, 5:20] = 200
            PIL.Image.fromarray(array).save(tmp_path / "set" / name / f"{i}.png")
    with pytest.raises(UserError, match="classes that the model doesn't know"):
        unmask.check("mnist", tmp_path / "set", minutes=0.5)
    (tmp_path / "set" / "violet").rename(tmp_path / "set" / "4")
    inner = Path(shutil.make_archive(str(tmp_path / "inner"), "zip", tmp_path / "set"))
    shutil.copy(inner, tmp_path / "set" / "4" / "more.zip")
    outer = shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "set")
    found = unmask.check("mnist", outer, minutes=0.5, questions=FEW)
    assert found.figures()["data.images"] == 6
    alone = tmp_path / "alone.zip"
    with zipfile.ZipFile(alone, "w") as archive:
        archive.write(inner, "inner.zip")
    with pytest.raises(UserError):
        unmask.check("mnist", alone, minutes=0.5)


def test_a_stateful_and_a_random_model_are_warned_of() -> None:
    inner = Colours()

    def random(pixels: Tensor) -> Tensor:
        return inner(pixels) + torch.rand(len(pixels), 3)

    found = unmask.check(random, coloured(), minutes=0.5, questions=("preflight",))
    assert "random output" in {v.kind for v in found.verdicts}

    def centred(pixels: Tensor) -> Tensor:
        return inner(pixels - pixels.mean(0, keepdim=True))

    found = unmask.check(centred, coloured(), minutes=0.5, questions=("preflight",))
    assert "batch dependence" in {v.kind for v in found.verdicts}


class Counting(Colours):
    """It keeps a count, which its answer depends on."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(pixels) * (1 + self.calls / 9)


class InPlace(Colours):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.sub_(0.1))


def test_the_cause_of_outputs_that_change_is_named() -> None:
    found = unmask.check(Counting(), coloured(), minutes=0.5, questions=("preflight",))
    (verdict,) = [v for v in found.verdicts if v.kind == "changes itself"]
    assert "changes calls" in verdict.cause
    # A model gets a copy of the images, so that it can't change what others are given.
    found = unmask.check(InPlace(), coloured(), minutes=0.5, questions=("preflight", "accuracy"))
    assert found.figures()["accuracy.accuracy"] == 1
    assert not found.verdicts


def noisy(pixels: Tensor) -> Tensor:
    return Colours()(pixels) + 3 * torch.randn(len(pixels), 3)


def sometimes_nan(pixels: Tensor) -> Tensor:
    dark = pixels.flatten(1).mean(1) < 0.41
    return torch.where(dark[:, None], torch.nan, Colours()(pixels))


def background_first(pixels: Tensor) -> Tensor:
    return nn.functional.pad(Colours()(pixels), (1, 0), value=-99.0)


@pytest.mark.parametrize("model", [noisy, sometimes_nan, background_first])
def test_preprocessing_is_not_blamed_for_what_it_only_hides(model: object) -> None:
    numbered = Images(coloured().pixels, coloured().labels, ("0", "1", "2"), "colours")
    found = unmask.check(model, numbered, minutes=0.5, questions=("preflight", "accuracy"))
    assert "preprocessing" not in {v.kind for v in found.verdicts}
    assert ("class order" in errors(found)) == (model is background_first)


def test_another_order_of_the_classes_is_named() -> None:
    images = coloured()
    other = Images(images.pixels, (images.labels + 1) % 3, ("blue", "red", "green"), "c")
    found = unmask.check(Colours(), other, minutes=0.5, questions=("preflight", "accuracy"))
    assert errors(found) == {"class order"}
    (verdict,) = [v for v in found.verdicts if v.kind == "class order"]
    assert "blue is output 2, red is output 0, green is output 1" in verdict.message


def test_distances_are_named_and_a_constant_is_no_other_order() -> None:
    few = ("preflight", "accuracy")
    labels = np.arange(60) % 3
    far = -torch.eye(3)[labels] + 0.1 * torch.rand(60, 3)
    verdict = other_order(far, labels, NAMES)
    assert verdict is not None
    assert "by the smallest output" in verdict.message
    alone = Images(coloured().pixels[:40], np.zeros(40, np.int64), NAMES, "one class")
    found = unmask.check(lambda x: torch.eye(3)[[2] * len(x)], alone, minutes=0.5, questions=few)
    assert errors(found) == {"no better than chance"}


def test_weights_that_are_not_numbers_are_named() -> None:
    model = Colours()
    with torch.no_grad():
        model.convolution.weight[0, 0] = torch.nan
    found = unmask.check(model, coloured(), minutes=0.5, questions=("preflight",))
    (verdict,) = [v for v in found.verdicts if v.kind == "logits not finite"]
    assert "convolution.weight" in verdict.fix


def test_data_comes_in_every_form_that_load_data_takes() -> None:
    images = coloured(60)
    pixels, labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
    one_by_one = torch.utils.data.TensorDataset(pixels.float() / 255, labels)
    forever = iter(lambda: (pixels, labels), None)
    for data in (
        (pixels.permute(0, 2, 3, 1), labels),
        [{"pixel_values": pixels, "labels": labels}],
        [(pixels, labels, "extra")],
        one_by_one,
        forever,
    ):
        found = unmask.check(Colours(), data, minutes=0.5, questions="accuracy")
        assert found.figures()["accuracy.accuracy"] == 1
    for bad in ((pixels, ["a"] * 60), (pixels, labels / 2), ["a.png", "b.png"], 3):
        with pytest.raises(UserError):
            unmask.check(Colours(), bad, minutes=0.5)
    with pytest.raises(UserError, match="minutes"):
        unmask.check(Colours(), images, minutes="5")
    with pytest.raises(UserError, match="without quotes"):
        unmask.audit(Colours(), images, eps="8/255")


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
def test_probabilities_are_judged_as_such(end: nn.Module) -> None:
    model = nn.Sequential(Colours(), nn.BatchNorm1d(3, affine=False), end).eval()
    model[1].running_mean.fill_(6.0)
    found = unmask.check(model, coloured(), minutes=0.5, questions=("preflight", "accuracy"))
    assert {v.kind for v in found.verdicts} == {"probabilities"}
    confidence = unmask.check(model[:2], coloured(), minutes=0.5, questions=("accuracy",))
    same = confidence.figures()["accuracy.confidence"]
    assert found.figures()["accuracy.confidence"] == pytest.approx(same, abs=0.001)


def test_two_classes_and_one_probability_train_and_are_judged() -> None:
    images = coloured()
    kept = np.flatnonzero(images.labels < 2)
    two = Images(images.pixels[kept], images.labels[kept], ("red", "green"), "two colours")

    class Binary(Colours):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            return (logits[:, 1:2] - logits[:, :1]).sigmoid()

    found = unmask.check(Binary(), two, minutes=0.5, questions=("preflight", "accuracy", "flow"))
    assert found.figures()["accuracy.accuracy"] == 1
    assert not errors(found)
    assert "unanswered" not in {v.kind for v in found.verdicts}


VERDICTS = [
    Verdict("leak", "error", "12 images", fix="delete them", evidence={"leaks": 12}),
    Verdict("fragile", "warning", "50 % under <fog>", subject="fog", location="model.py:7"),
    Verdict("fragile", "note", "two more\x1b[31m"),
]

# What SARIF 2.1.0 requires of the parts that are written here.
SARIF_SCHEMA = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name", "rules"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {"type": "object", "required": ["id"]},
                                    }
                                },
                            }
                        },
                    },
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message", "ruleId", "level", "locations"],
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "message": {
                                    "type": "object",
                                    "required": ["text"],
                                    "properties": {"text": {"type": "string", "minLength": 1}},
                                },
                                "partialFingerprints": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                },
                                "locations": {
                                    "type": "array",
                                    "minItems": 1,
                                    "items": {
                                        "type": "object",
                                        "required": ["physicalLocation"],
                                        "properties": {
                                            "physicalLocation": {
                                                "type": "object",
                                                "required": ["artifactLocation"],
                                                "properties": {
                                                    "artifactLocation": {
                                                        "type": "object",
                                                        "required": ["uri"],
                                                        "properties": {
                                                            "uri": {
                                                                "type": "string",
                                                                "pattern": "^[A-Za-z0-9._~/%-]+$",
                                                            }
                                                        },
                                                    },
                                                    "region": {
                                                        "type": "object",
                                                        "properties": {
                                                            "startLine": {
                                                                "type": "integer",
                                                                "minimum": 1,
                                                            }
                                                        },
                                                    },
                                                },
                                            }
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_sarif_keeps_to_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    log = json.loads(sarif(VERDICTS, "my_module:make model", figures={"accuracy": 0.5}))
    jsonschema.validate(log, SARIF_SCHEMA)
    run = log["runs"][0]
    assert [r["id"] for r in run["tool"]["driver"]["rules"]] == ["leak", "fragile"]
    assert [r["ruleIndex"] for r in run["results"]] == [0, 1, 1]
    place = run["results"][1]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("model.py", 7)
    assert "\x1b" not in run["results"][2]["message"]["text"]


def test_junit_counts_what_fails() -> None:
    text = junit(
        {"data": VERDICTS[:1], "shift": VERDICTS[1:], "flow": []},
        name="m",
        skipped={"audit": "no time"},
    )
    root = ElementTree.fromstring(text)
    assert (root.get("tests"), root.get("failures")) == ("5", "1")
    suites = {s.get("name"): s for s in root}
    assert suites["audit"].get("skipped") == "1"
    assert suites["shift"].get("failures") == "0"
    assert suites["flow"][0].get("name") == "healthy"
    strict = junit({"shift": VERDICTS[1:]}, name="m", fail_on="warning")
    assert ElementTree.fromstring(strict).get("failures") == "1"


def made(*verdicts: Verdict, **figures: float) -> Check:
    return Check("m", "d", (Part("data", "done", figures=figures, verdicts=verdicts),), 1, 1)


def test_a_baseline_fails_only_what_got_worse(tmp_path: Path) -> None:
    leak, fog = VERDICTS[0], VERDICTS[1]
    paths = made(leak, fog, accuracy=0.9).save(tmp_path)
    worse_fog = Verdict("fragile", "error", "10 % under fog", subject="fog")
    snow = Verdict("fragile", "warning", "snow", subject="snow")
    found = compare(made(worse_fog, snow, accuracy=0.8), paths[1])
    assert {(c, v.subject or v.kind) for c, v in found.changes} == {
        ("worse", "fog"),
        ("new", "snow"),
        ("gone", "leak"),
    }
    assert found.figures == {"data.accuracy": (0.9, 0.8)}
    assert failing(found.worse, "error") == [worse_fog]
    assert failing(found.worse, "never") == []
    page = check_page(made(snow, accuracy=0.8), found)
    assert "0.9 became 0.8" in page
    # A difference that isn't shown is none to read about.
    close = compare(made(leak, fog, accuracy=0.9 + 1e-9), paths[1])
    assert "became" not in check_page(made(leak, fog), close)
    with pytest.raises(UserError, match="baseline"):
        compare(made(), tmp_path / "nothing.json")


def test_a_verdict_is_gone_only_when_its_question_was_answered_again(tmp_path: Path) -> None:
    leak = VERDICTS[0]
    before = made(leak, near_leaks=0.0).save(tmp_path)[1]

    def again(status: str, **figures: float) -> list[str]:
        part = Part("data", status, figures=figures)
        return [c for c, _ in compare(Check("m", "d", (part,), 1, 1), before).changes]

    assert again("done", near_leaks=0.0, images=9.0) == ["gone"]
    assert again("done", images=9.0) == ["not asked"]
    assert again("skipped") == ["not asked"]
    old = json.loads(before.read_text())
    del old["parts"]
    before.write_text(json.dumps(old))
    assert again("skipped") == ["gone"]


def test_a_verdict_on_a_corruption_is_gone_only_when_that_was_measured_again(
    tmp_path: Path,
) -> None:
    fog = Verdict("not robust", "warning", "fog costs 40 points", subject="fog")
    none = Verdict("not calibrated", "warning", "too sure", subject="shift")
    first = Part("shift", "done", figures={"ece": 0.1}, verdicts=(fog, none), tried=("fog", "snow"))
    before = Check("m", "d", (first,), 1, 1).save(tmp_path)[1]

    def again(*tried: str) -> list[str]:
        part = Part("shift", "done", figures={"ece": 0.1}, tried=tried)
        return [c for c, _ in compare(Check("m", "d", (part,), 1, 1), before).changes]

    assert again("fog") == ["gone", "gone"]
    assert again("snow") == ["not asked", "gone"]


def test_a_file_that_is_no_check_is_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(UserError, match=r"no check\.json"):
        compare(made(), tmp_path / "other.json")


def test_the_page_needs_nothing_else_and_quotes_foreign_text() -> None:
    page = check_page(made(*VERDICTS))
    assert "&lt;fog&gt;" in page
    assert 'src="http' not in page
    assert "something is wrong" in page
    assert "no error" in check_page(made())


def test_other_preprocessing_is_tried_in_batches_that_fit() -> None:
    # As floats at once, images of this size would take several times their own memory.
    side, count = 256, 400
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = np.broadcast_to(rng.integers(0, 120, (1, 3, side, side)), (count, 3, side, side))
    pixels = (pixels + 100 * labels[:, None, None, None]).astype(np.uint8)
    batches = []

    def bright(x: Tensor) -> Tensor:
        batches.append(len(x))
        mean = x[:, :, ::32, ::32].mean((1, 2, 3))
        return torch.stack([0.43 - mean, mean - 0.43], 1) * 20

    found = unmask.check(bright, (pixels, labels), minutes=0.5, questions=("preflight",))
    assert not errors(found)
    assert 64 < max(batches) <= batch_size_of(torch.zeros(1, 3, side, side))
