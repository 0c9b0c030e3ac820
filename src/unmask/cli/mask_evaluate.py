"""The verb mask evaluate: a detector's figures on annotated images."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.mask_detect import UNREADABLE, refuse_mirrored
from unmask.cli.options import Annotations, FiguresAsJson, Threshold
from unmask.errors import UserError

# Average precision covers all thresholds, so boxes with far lower scores are needed too.
_FLOOR = 0.01


def evaluate(
    folder: Annotations,
    /,
    *,
    model: Annotated[
        Path | None, Parameter(help="an ONNX file of mask export; what ships by default")
    ] = None,
    threshold: Threshold = None,
    classes: Annotated[
        tuple[str, ...],
        Parameter(
            help="what the annotations' classes are: with=NAME without=NAME improper=NAME, of each "
            "as many as there are; others are passed over",
            consume_multiple=True,
        ),
    ] = (),
    corrected: Annotated[
        bool, Parameter(help="the face mask set: with its annotation errors corrected")
    ] = False,
    mirrored: Annotated[bool, Parameter(show=False)] = False,
    json: FiguresAsJson = False,
) -> int:
    """Measure a detector on annotated images it was not trained on.

    Average precision, tables by kind of face, and whether its stated confidence is right. The
    exit status is 2 when a file could not be read: it is named, and the others are measured.
    """
    from unmask.cli.mask_table import print_metrics, print_reliabilities
    from unmask.data.detection.dataset import left_out, read_annotated, readable
    from unmask.mask.evaluate.confidence import reliabilities
    from unmask.mask.evaluate.metrics import measured
    from unmask.mask.runtime.classes import renamed
    from unmask.mask.runtime.detector import MaskDetector

    refuse_mirrored(mirrored)
    detector = MaskDetector.load(model)
    annotated, warnings = read_annotated(folder)
    if classes:
        annotated = annotated.named(renamed(annotated.class_names, classes, merge=True))
        strange = [name for name in annotated.class_names if name not in detector.class_names]
        if strange:
            warnings += (f"boxes of other classes passed over: {', '.join(strange[:12])}",)
            annotated = annotated.only(detector.class_names)
    elif not set(annotated.class_names) & set(detector.class_names):
        raise UserError(
            "none of the annotations' classes is the detector's",
            got=", ".join(annotated.class_names[:12]),
            do='say which is which, as in --classes with=Mask without="No Mask"',
        )
    if corrected:
        annotated = annotated.corrected()
    annotated, damaged = readable(annotated.with_classes(detector.class_names))
    warnings += damaged
    found = [detector.detect(path, threshold=_FLOOR) for path in annotated.paths]
    least = detector.facts.calibration.face if threshold is None else threshold
    metrics = measured(annotated, found, threshold=least)
    certain = reliabilities(annotated, found, threshold=least)
    if json:
        told = {
            **metrics.as_dict(),
            "reliability": {of: reliability.as_dict() for of, reliability in certain.items()},
            "warnings": list(warnings),
        }
        print(json_module.dumps(told))
    else:
        for line in warnings:
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
        print_metrics(Console(), metrics)
        print_reliabilities(Console(), certain)
    return UNREADABLE if left_out(warnings) else 0
