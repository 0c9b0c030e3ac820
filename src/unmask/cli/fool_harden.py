"""The verb fool harden: a classifier that withstands small changes."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import (
    Cifar10Source,
    Data,
    Device,
    FiguresAsJson,
    Norm,
    Resume,
    Seed,
    Size,
    real,
    sizes,
    whole,
)
from unmask.cli.progress import epoch_progress
from unmask.cli.streams import say
from unmask.errors import UserError
from unmask.text import counted

if TYPE_CHECKING:
    from unmask.data.sources import Source
    from unmask.fool.certify.training import CertifiedProgress, CertifiedTraining
    from unmask.fool.norms import Threat
    from unmask.train.fit import FitProgress
    from unmask.train.job import Trained


def harden(
    data: Data,
    /,
    *,
    norm: Norm = "linf",
    eps: Annotated[
        str | None,
        Parameter(
            help="the largest change to be robust to, such as 0.3 or 8/255; by default 0.3 "
            "(grey) or 8/255 for linf, 1.5 (grey) or 0.5 for l2"
        ),
    ] = None,
    certified: Annotated[
        bool,
        Parameter(help="train for proofs by unmask fool certify, in linf, instead of on attacks"),
    ] = False,
    threshold: Annotated[
        float | None,
        real(
            0,
            1,
            "turn pixels into black and white at this grey first, as 0.5: for drawings such as "
            "digits, whose robustness it raises",
            above=True,
            below=True,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        whole(1, 1_000_000, "passes over the training images, by default 12, --certified 40"),
    ] = None,
    steps: Annotated[
        int, whole(1, 10_000, "gradients an attack of a batch takes; 1 is the fast gradient step")
    ] = 4,
    margin: Annotated[
        float | None,
        real(
            0,
            1000,
            "how far images are changed, as a multiple of --eps, by default 1.1, --certified 1.2",
            above=True,
        ),
    ] = None,
    source: Cifar10Source = None,
    size: Size = None,
    out: Annotated[Path | None, Parameter(help="runs/harden-DATA by default")] = None,
    device: Device = "auto",
    seed: Seed = 0,
    half: Annotated[bool, Parameter(help="store the weights in half precision")] = False,
    resume: Resume = False,
    json: FiguresAsJson = False,
) -> int:
    """Train a classifier on images attacked at every step; audit it with unmask fool audit.

    With --certified it learns from the worst case that intervals allow: prove it with
    unmask fool certify.
    """
    # torch takes a while to load, and --help needs none of it.
    from unmask.cli.progress import load_shown
    from unmask.data.sources import shape_for
    from unmask.fool.audit.plan import default_eps
    from unmask.fool.harden import harden as harden_on
    from unmask.fool.norms import Threat
    from unmask.runtime import claimed_folder
    from unmask.train.fit import FitInterrupted

    size_given = None if eps is None else Threat.of(norm, sizes([eps])[0])
    console = Console(stderr=True)
    pictures = load_shown(console, data, source, shape_for(data, size=size))
    usual = default_eps(norm, pictures.train.pixels.shape[1])
    withstood = size_given or Threat.of(norm, usual)
    out = out or Path("runs") / f"harden-{Path(data).stem}"
    if certified:
        plan = _certified_plan(withstood, epochs=epochs, margin=margin, seed=seed)
        return _certify(console, pictures, data, plan, threshold, out, half, resume, device, json)
    with claimed_folder(out, data), epoch_progress(console, _figures) as show:
        try:
            trained = harden_on(
                pictures.train,
                withstood,
                out=out,
                test=pictures.test or pictures.validation,
                epochs=12 if epochs is None else epochs,
                steps=steps,
                margin=1.1 if margin is None else margin,
                threshold=threshold,
                licence=pictures.licence,
                half=half,
                resume=resume,
                device=device,
                seed=seed,
                progress=show,
            )
        except FitInterrupted:
            raise UserError(
                "stopped before the first epoch ended; nothing was saved",
                do="run the command again",
            ) from None
    if json:
        card = trained.classifier.card.as_dict()
        print(json_module.dumps({"model": str(out / "model.safetensors"), "card": card}))
    else:
        _print(trained, out, str(withstood))
    return 130 if trained.history.ended == "interrupted" else 0


def _certified_plan(
    threat: Threat, *, epochs: int | None, margin: float | None, seed: int
) -> CertifiedTraining:
    from unmask.fool.certify.training import CertifiedTraining

    if threat.norm.name != "linf":
        raise UserError(
            "certified training knows linf alone", got=threat.norm.name, do="leave --norm away"
        )
    usual = CertifiedTraining()
    return CertifiedTraining(
        eps=threat.bound,
        epochs=usual.epochs if epochs is None else epochs,
        margin=usual.margin if margin is None else margin,
        seed=seed,
    )


def _certify(
    console: Console,
    pictures: Source,
    data: str,
    plan: CertifiedTraining,
    threshold: float | None,
    out: Path,
    half: bool,
    resume: bool,
    device: str,
    json: bool,
) -> int:
    from unmask.fool.certify.classifier import harden_certified
    from unmask.runtime import claimed_folder

    def figures(p: CertifiedProgress) -> str:
        return f"eps {p.eps:.3f}  accuracy {p.clean:.4f}  proved {p.proved:.4f}"

    with claimed_folder(out, data), epoch_progress(console, figures) as show:
        made = harden_certified(
            pictures.train,
            plan,
            threshold=threshold,
            out=out,
            test=pictures.test or pictures.validation,
            licence=pictures.licence,
            half=half,
            resume=resume,
            device=device,
            progress=show,
        )
    model = out / "model.safetensors"
    if json:
        print(json_module.dumps({"model": str(model), "card": made.classifier.card.as_dict()}))
        return 0
    say(f"trained {counted(made.end.epoch, 'epoch')} in {made.end.seconds:.0f} s")
    for name, pair in (("images held out", made.guard), ("test images", made.test)):
        if pair is not None:
            say(f"{name}: accuracy {pair[0]:.4f}, proved by intervals {pair[1]:.4f}")
    say(f"model: {model}, card: {out / 'model.json'}")
    say(f"now: unmask fool certify {model} DATA --eps {plan.eps:g}")
    return 0


def _print(trained: Trained, out: Path, threat: str) -> None:
    history, best = trained.history, trained.history.best
    assert best is not None
    assert best.validation_attacked is not None
    say(f"trained {counted(len(history.epochs), 'epoch')} in {history.epochs[-1].seconds:.0f} s")
    say(
        f"kept epoch {best.epoch}: {best.validation_attacked:.4f} of the guard is right under "
        f"{threat}"
    )
    if history.ended == "collapsed":
        say("it then lost what it had gained, as fast training can, and was stopped")
    if trained.test is not None:
        low, high = trained.test.interval
        say(f"test accuracy {trained.test.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})")
    say(f"model: {out / 'model.safetensors'}, card: {out / 'model.json'}")
    say(f"now: unmask fool audit {out / 'model.safetensors'} DATA")


def _figures(p: FitProgress) -> str:
    return f"under attack: loss {p.loss:.4f}  accuracy {p.accuracy:.4f}"
