"""The face mask set of Kaggle: where it lies, how it is fetched, and what it holds when whole."""

from __future__ import annotations

import os
from pathlib import Path

from unmask.data.cards import CARDS
from unmask.errors import UserError

CARD = CARDS["face-mask-detection"]
HANDLE = "andrewmvd/face-mask-detection"
PICTURES = 853
FACES = {"with_mask": 3232, "without_mask": 717, "mask_weared_incorrect": 123}
# What Kaggle's own program and its site call the archive, packed and unpacked.
NAMES = ("face-mask-detection", "face-mask-detection.zip", "archive.zip", "faces")


def find_faces() -> Path:
    """Return the folder or zip archive of the set, downloaded when it isn't there.

    Looked for under NAMES in the folder that the environment variable UNMASK_DATA names, and
    downloaded by kagglehub into its own cache otherwise, without an account where
    Kaggle allows that. Raises UserError, saying how to get the set, when kagglehub is not installed
    or doesn't bring it.
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
    except Exception as error:  # Its own kinds of exceptions have no common one beneath.
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            "Kaggle did not give the face mask set",
            got=reason[0][:200],
            do=f"{_token(reason[0])}{by_hand.removeprefix('or ')}",
        ) from error


def _token(reason: str) -> str:
    """Return how to log in where Kaggle refuses those who don't, and nothing otherwise."""
    if not any(
        refusal in reason for refusal in ("401", "403", "Unauth", "Forbidden", "Permission")
    ):
        return ""
    return (
        "make an API token in your Kaggle account's settings and save it as "
        "~/.kaggle/kaggle.json, or "
    )
