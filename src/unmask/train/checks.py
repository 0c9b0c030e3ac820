"""The checks of images, network and processes before fit trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.train.adversary import Adversary
from unmask.train.teacher import Teacher


@torch.no_grad()
def check_network(model: nn.Module, picture: Tensor, classes: int) -> None:
    """Raise UserError unless the model takes one image to one logit a class.

    Args:
        model: set to eval mode.
        picture: float[1, c, h, w].
        classes: how many.
    """
    try:
        logits = model.eval()(picture)
    except RuntimeError as error:
        raise UserError(
            f"the network doesn't take images of shape {list(picture.shape[1:])}",
            got=str(error).splitlines()[0],
            do="give images of the network's size and channels",
        ) from error
    if tuple(logits.shape) != (1, classes):
        raise UserError(
            f"the network doesn't give one logit for each of {classes} classes",
            got=f"an output of shape {list(logits.shape)} for one image",
        )


def check_teacher(teacher: Teacher, student: nn.Module, picture: Tensor, classes: int) -> None:
    """Raise UserError unless each network passes check_network and none is the student.

    Args:
        teacher: the networks.
        student: the network to be trained.
        picture: float[1, c, h, w].
        classes: how many.
    """
    for network in teacher.networks:
        if network is student:
            raise UserError("a network can't teach itself while it learns", do="give a copy of it")
        check_network(network, picture, classes)


def check_parts(processes: int, pictures: int, adversary: Adversary | None = None) -> None:
    """Raise UserError unless every process gets an image of each batch.

    Args:
        processes: how many train together.
        pictures: how many images the smallest batch, or the validation, has.
        adversary: trains in one process only; None without.
    """
    if processes > pictures:
        raise UserError(
            "every process needs an image of each batch and one to validate with",
            got=f"{processes} processes and {pictures} images",
            do="start fewer processes, or give a larger batch",
        )
    if processes > 1 and adversary is not None:
        raise UserError(
            "adversarial training runs in one process", got=processes, do="leave torchrun out"
        )


def check_pictures(images: Images, validation: Images | None) -> None:
    """Raise UserError for images that can't be trained on or validated with.

    Args:
        images: at least one of each of two classes.
        validation: at least one, of the same classes and shape; None for none.
    """
    if not len(images):
        raise UserError("there are no images to train on", got=images.name)
    if len(set(images.labels.tolist())) < 2:
        raise UserError(
            "all images are of one class, so there is nothing to learn",
            got=f"{len(images)} images of {images.class_names[images.labels[0]]!r}",
            do="add images of another class, each class in a folder of its own",
        )
    if validation is None:
        return
    if not len(validation):
        raise UserError("there are no images to validate with", got=validation.name)
    for what, ours, theirs in (
        ("classes", images.class_names, validation.class_names),
        ("shapes", images.pixels.shape[1:], validation.pixels.shape[1:]),
    ):
        if ours != theirs:
            raise UserError(
                f"training and validation images have different {what}",
                got=f"{list(ours)} and {list(theirs)}",
            )
