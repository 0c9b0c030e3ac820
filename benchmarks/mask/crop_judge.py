"""The mask detector as a classifier of faces cut out of pictures, so that it can be attacked."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from unmask.data.detection.dataset import AnnotatedImages
from unmask.data.images import Images
from unmask.mask.runtime.decode import STRIDE
from unmask.mask.training.crops import crops
from unmask.mask.training.network import FaceNetwork, Heads

# The face's longer side is half of the crop's.
CROP, CONTEXT = 96, 0.5
# How far from the crop's middle, in pixels, the face's centre is looked for.
_REACH = 8
NOT_FOUND = "not_found"


class CropJudge(nn.Module):
    """Crops, float[b, 3, 96, 96] in [0, 1], to logits [b, classes + 1], the last for no face.

    What is said of the cell, near the middle, that is most of a face: the logits of the classes,
    raised by how far the face's own logit lies over the threshold, a score in (0, 1) of the
    network. No face has the largest of the classes' without that, so that it is the answer just
    when the detector would draw no box.
    """

    def __init__(self, network: FaceNetwork, threshold: float) -> None:
        super().__init__()
        self.network = network
        self.least = math.log(threshold / (1 - threshold))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        heads: Heads = self.network(pixels)
        middle, reach = CROP // STRIDE // 2, _REACH // STRIDE
        near = slice(middle - reach, middle + reach)
        face, cell = heads.face[:, near, near].flatten(1).max(1)
        classes = heads.classes[:, :, near, near].flatten(2).log_softmax(1)
        said = classes.gather(2, cell[:, None, None].expand(-1, classes.shape[1], 1)).squeeze(2)
        raised = said + (face - self.least)[:, None]
        return torch.cat([raised, said.amax(1, keepdim=True)], 1)


def faces_of(annotated: AnnotatedImages, label: str, least_side: float, count: int) -> Images:
    """Return at most count faces of a class, spread evenly over all that are large enough."""
    found = crops(annotated, CROP, CONTEXT)
    wanted = annotated.class_names.index(label)
    good = np.flatnonzero((found.images.labels == wanted) & (found.sides >= least_side))
    kept = min(count, len(good))
    chosen = found.images[good[np.arange(kept) * len(good) // max(kept, 1)]]
    return Images(chosen.pixels, chosen.labels, (*annotated.class_names, NOT_FOUND), annotated.name)
