"""The face mask set of Kaggle: where it is found, how it is downloaded, and what it holds."""

from __future__ import annotations

import os
from pathlib import Path

from unmask.data.cards import CARDS
from unmask.errors import UserError

CARD = CARDS["face-mask-detection"]
HANDLE = "andrewmvd/face-mask-detection"
PICTURES = 853
FACES = {"with_mask": 3232, "without_mask": 717, "mask_weared_incorrect": 123}
# The names that Kaggle's own program and its site give the archive, packed and unpacked.
NAMES = ("face-mask-detection", "face-mask-detection.zip", "archive.zip", "faces")


def find_faces() -> Path:
    """Return the folder or zip archive of the face mask set, downloaded when it isn't found.

    It is searched for under NAMES in the folder that the environment variable UNMASK_DATA names.
    Otherwise kagglehub downloads it into its own cache, without an account where Kaggle allows
    that.

    Raises:
        UserError: when kagglehub is not installed or the download fails; it states how to get the
            set.
    """
    home = os.environ.get("UNMASK_DATA")
    for name in NAMES if home else ():
        path = Path(home or "") / name
        if path.exists():
            return path
    return _downloaded()


def _downloaded() -> Path:
    by_hand = (
        f"or download the zip archive from {CARD.homepage} and give it with --source, or put it "
        f"into the folder that UNMASK_DATA names, as {NAMES[1]}"
    )
    try:
        import kagglehub  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise UserError(
            "to download the face mask set needs kagglehub",
            got=str(error),
            do=f"pip install 'unmask[faces]', {by_hand}",
        ) from error
    try:
        return Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:  # Its exceptions have no common base class.
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            "Kaggle did not give the face mask set",
            got=reason[0][:200],
            do=f"{_token(reason[0])}{by_hand.removeprefix('or ')}",
        ) from error


def _token(reason: str) -> str:
    """Return how to log in where Kaggle requires an account, and nothing otherwise."""
    if not any(
        refusal in reason for refusal in ("401", "403", "Unauth", "Forbidden", "Permission")
    ):
        return ""
    return (
        "make an API token in your Kaggle account's settings and save it as "
        "~/.kaggle/kaggle.json, or "
    )
