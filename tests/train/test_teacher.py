"""What a teacher says is learnt in its share, and training goes on from a model's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unmask.data.augment import Augmentation, augmented, draw, mixed
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.train.config import FitConfig
from unmask.train.evaluation import evaluate
from unmask.train.fit import FitProgress, fit
from unmask.train.job import train_classifier
from unmask.train.recipes import Recipe, recipe
from unmask.train.teacher import Teacher

Make = Callable[..., Classifier]
CONFIG = FitConfig(epochs=2, batch_size=40, rate=0.01, precision="fp32")


@pytest.fixture
def small() -> Recipe:
    chosen = recipe("pictures", "fast", 240)
    config = replace(chosen.config, epochs=3, batch_size=32, precision="fp32")
    return replace(chosen, config=config, settings={"widths": [8, 8, 8]}, holdout=0.0)


def view(picture: torch.Tensor, kind: int) -> torch.Tensor:
    """As it is, mirrored, moved down and right, mirrored and moved up and left, or only that."""
    seen = picture.numpy()[:, :, ::-1] if kind in (1, 3) else picture.numpy()
    padded = np.pad(seen, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    first = (1, 1, 0, 2, 2)[kind]
    return torch.from_numpy(padded[:, first : first + 12, first : first + 12].copy())


@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
@pytest.mark.parametrize("shift", [0, 2])
def test_opinions_are_the_mean_over_networks_that_take_turns_at_the_views(
    shapes: Images, make: Make, flip: str, shift: int
) -> None:
    # A digit in the mirror is another one, or none: views are those that training shows.
    allowed = [0, 0 if flip == "none" else 1]
    kinds = [*allowed, *([2, 3] if flip != "none" else [2, 4])] if shift else allowed * 2
    networks = (make(seed=1).eval(), make(seed=2).eval(), make(seed=3).eval())
    pictures = torch.from_numpy(shapes.pixels[:31]).float() / 255
    labels = nn.functional.one_hot(torch.from_numpy(shapes.labels[:31]), 3).float()
    with torch.no_grad():
        said = [
            [
                n(view(p, kinds[(i + turn) % 4])[None])[0].double().softmax(0)
                for turn, n in enumerate(networks)
            ]
            for i, p in enumerate(pictures)
        ]
    expected = 0.4 * labels + 0.6 * torch.stack([torch.stack(s).mean(0) for s in said])
    before = pictures.clone()
    found = Teacher(networks, share=0.6).targets(pictures, labels, Augmentation(flip, shift))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(pictures, before)


class Stubborn(nn.Module):
    """Says the same of every image."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.1, 0.6, 0.3]]).log().expand(len(pixels), 3)


@pytest.mark.parametrize("cutmix", [0.0, 0.8])
def test_the_loss_is_of_labels_and_opinions_in_their_shares(
    shapes: Images, make: Make, cutmix: float
) -> None:
    augmentation = Augmentation("random", 1, cutmix=cutmix)
    config = FitConfig(
        epochs=1, batch_size=240, rate=1e-9, augmentation=augmentation, precision="fp32"
    )
    model = make()
    draws = draw(augmentation, 240, seed=0, epoch=0)
    labels = torch.from_numpy(shapes.labels)
    pictures = augmented(torch.from_numpy(shapes.pixels).permute(0, 2, 3, 1), augmentation, draws)
    share = torch.ones(240)
    if cutmix:
        pictures, share = mixed(pictures, pictures[draws.mate], draws.square)
    with torch.no_grad():
        surprise = -model(pictures).double().log_softmax(1)
    of_labels = share * surprise.gather(1, labels[:, None])[:, 0]
    if cutmix:
        of_labels += (1 - share) * surprise.gather(1, labels[draws.mate][:, None])[:, 0]
    of_opinions = surprise @ torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    expected = (0.3 * of_labels + 0.7 * of_opinions).mean().item()
    history = fit(model, shapes, config, teacher=Teacher((Stubborn(),), share=0.7), device="cpu")
    assert history.epochs[0].train_loss == pytest.approx(expected, rel=1e-5)


def test_a_teacher_without_a_share_changes_nothing_and_is_not_changed(
    shapes: Images, make: Make
) -> None:
    alone, taught, other = make(), make(), make(seed=1)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    fit(alone, shapes, CONFIG, device="cpu")
    fit(taught, shapes, CONFIG, teacher=Teacher((other.train(),), share=0.0), device="cpu")
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(taught.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    assert all(p.grad is None for p in other.parameters())


def test_a_student_learns_from_opinions_alone(shapes: Images, make: Make) -> None:
    train, test = shapes.split(180)
    other = make(seed=1)
    fit(other, train, replace(CONFIG, epochs=4), device="cpu")
    # Labels that say nothing.
    blind = Images(train.pixels, train.labels[::-1].copy(), train.class_names, "blind")
    student = make()
    fit(student, blind, replace(CONFIG, epochs=4), teacher=Teacher((other,), share=1.0))
    assert evaluate(student, test).accuracy > 0.8 > evaluate(student, blind).accuracy + 0.2


def test_a_run_with_another_teacher_or_start_is_another_run(
    shapes: Images, make: Make, tmp_path: Path
) -> None:
    def go(seed: int, share: float = 0.8, start: str = "a") -> None:
        teacher = Teacher((make(seed=seed),), share=share)
        fit(
            make(),
            shapes,
            CONFIG,
            teacher=teacher,
            start=start,
            directory=tmp_path,
            resume=True,
            device="cpu",
        )

    go(1)
    go(1)
    for arguments, wrong in (
        ((2,), "another networks than"),
        ((1, 0.5), "another share than 0.5: got 0.8"),
        ((1, 0.8, "b"), "another start than b: got a"),
    ):
        with pytest.raises(UserError, match=wrong):
            go(*arguments)  # type: ignore[arg-type]


def test_teachers_that_can_not_teach_are_named(shapes: Images, make: Make) -> None:
    with pytest.raises(UserError, match="one network or more"):
        Teacher(())
    with pytest.raises(UserError, match=r"share must be from 0 to 1: got 1\.5"):
        Teacher((make(),), share=1.5)
    model = make()
    with pytest.raises(UserError, match="teach itself while it learns"):
        fit(model, shapes, CONFIG, teacher=Teacher((model,)))
    with pytest.raises(UserError, match="one logit for each of 3 classes"):
        fit(
            model,
            shapes,
            CONFIG,
            teacher=Teacher((nn.Sequential(nn.Flatten(), nn.Linear(432, 5)),)),
        )


def test_training_goes_on_from_a_model_and_its_card_says_so(
    shapes: Images, small: Recipe, tmp_path: Path
) -> None:
    first = train_classifier(small, shapes, out=tmp_path / "a", device="cpu").classifier
    before = evaluate(first, shapes).loss
    still = replace(small, config=replace(small.config, epochs=1).at_rate(1e-9))
    out = tmp_path / "b"
    second = train_classifier(
        still,
        shapes,
        out=out,
        start=Classifier.load(tmp_path / "a" / "model"),
        teacher=Teacher((Classifier.load(tmp_path / "a" / "model"),)),
        device="cpu",
    ).classifier
    # Only batch norm's statistics move at such a rate.
    for mine, theirs in zip(second.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert evaluate(second, shapes).loss == pytest.approx(before, abs=0.2)
    facts = second.card.facts
    assert facts["start"] == first.card.weights_sha256
    assert facts["teacher"]["share"] == 0.8
    assert len(facts["teacher"]["networks"]) == 1
    assert facts["recipe"]["label_smoothing"] == 0.0, "what a teacher says is smooth already"
    assert small.config.label_smoothing > 0


def test_a_stopped_run_that_started_from_a_model_resumes_to_the_same_bits(
    shapes: Images, small: Recipe, tmp_path: Path
) -> None:
    train_classifier(small, shapes, out=tmp_path / "a", device="cpu")

    def go(out: Path, resume: bool, stop_in: int | None) -> bytes:
        def stop(progress: FitProgress) -> None:
            if progress.epoch == stop_in:
                raise KeyboardInterrupt

        train_classifier(
            small,
            shapes,
            out=out,
            start=Classifier.load(tmp_path / "a" / "model"),
            teacher=Teacher((Classifier.load(tmp_path / "a" / "model"),)),
            resume=resume,
            device="cpu",
            progress=stop,
        )
        return (out / "model.safetensors").read_bytes()

    whole = go(tmp_path / "whole", False, None)
    go(tmp_path / "parts", False, 3)
    assert go(tmp_path / "parts", True, None) == whole


@pytest.mark.parametrize("use", ["start", "learn"])
def test_a_model_of_other_pictures_is_refused(
    shapes: Images, small: Recipe, make: Make, tmp_path: Path, use: str
) -> None:
    def go(images: Images) -> None:
        start, teacher = (make(), None) if use == "start" else (None, Teacher((make(),)))
        train_classifier(small, images, out=tmp_path, start=start, teacher=teacher, device="cpu")

    other = Images(shapes.pixels, shapes.labels, ("a", "b", "z"), "others")
    with pytest.raises(UserError, match=f"the model to {use} from and the .* their classes"):
        go(other)
    # One channel would be taken for three by broadcasting.
    grey = Images(shapes.pixels[:, :1].copy(), shapes.labels, shapes.class_names, "grey")
    with pytest.raises(UserError, match=f"the model to {use} from and the .* their shape"):
        go(grey)
    assert not list(tmp_path.iterdir())


def test_other_rates_follow_the_peak_rate() -> None:
    config = FitConfig(epochs=1, rate=0.12, bias_rate=26.5, head_rate=335.0).at_rate(0.06)
    assert (config.rate, config.bias_rate, config.head_rate) == (0.06, 13.25, 167.5)
    assert FitConfig(epochs=1, rate=0.1).at_rate(0.2).bias_rate is None
