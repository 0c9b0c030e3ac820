"""Make the README's pictures anew: python benchmarks/release/pictures.py [DETECTOR.onnx]

The study's gradients, the map and the grid are taken from what `unmask flow study`, `flow map` and
`fool grid` left in runs/; the portrait without and with a mask is looked at by the detector given,
or by the one that ships.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from unmask.coursework.portraits import WORN, shown
from unmask.data.samples import PORTRAITS
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.drawing import draw

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
FROM_RUNS = {
    "study-gradients.png": Path("runs/study/figures/gradients-trained.png"),
    "map.png": Path("runs/map/figures/map.png"),
    "grid.png": Path("runs/grid/figures/mnist.png"),
}
GAP = 12


def main(model: Path | None) -> None:
    made = {}
    for name, run in FROM_RUNS.items():
        if run.exists():
            shutil.copyfile(run, PICTURES / name)
            made[name] = str(run)
    detector = MaskDetector.load(model)
    bare, masked = (shown(PORTRAITS[0], worn) for worn in WORN[:2])
    seen = []
    said = []
    for picture in (bare, masked):
        found = detector.detect(picture)
        said.append([f"{n} {s:.2f}" for n, s in zip(found.names(), found.scores, strict=True)])
        seen.append(draw(picture.copy(), found))
    both = Image.new("RGB", (sum(p.width for p in seen) + GAP, seen[0].height), "white")
    both.paste(seen[0], (0, 0))
    both.paste(seen[1], (seen[0].width + GAP, 0))
    # As PNG the portraits would take 850 kB.
    both.save(PICTURES / "mask.jpg", quality=90)
    made["mask.jpg"] = str(model or "the detector that ships")
    for name, origin in made.items():
        print(f"{name:20s} from {origin}")
    print(json.dumps({"pictures": made, "faces": said}))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
