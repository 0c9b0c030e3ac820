"""The datasets that Unmask knows but doesn't ship: their sources, licences and checksums."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Args:
        name: the file's name.
        urls: its mirrors, tried in this order.
        size: in bytes.
        sha256: in hex.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class DatasetCard:
    """A dataset: its files, licence and citation, and where to read more.

    Args:
        name: its key in CARDS, and the name of its folder in the cache.
        title: its name in words.
        homepage: where to read more.
        licence: its licence, in words.
        citation: the paper or page to cite.
        files: to download; empty where the provider requires an account.
        by_hand: how to get such a dataset, "" for the others.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    files: tuple[RemoteFile, ...] = ()
    by_hand: str = ""


def _mnist(name: str, size: int, sha256: str) -> RemoteFile:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    )
    return RemoteFile(name, tuple(f"{mirror}/{name}" for mirror in mirrors), size, sha256)


def _cifar10(kind: str, size: int, sha256: str) -> DatasetCard:
    archive = f"cifar-10-{kind}.tar.gz"
    url = f"https://www.cs.toronto.edu/~kriz/{archive}"
    return DatasetCard(
        name=f"cifar10-{kind}",
        title=f"CIFAR-10 ({kind} version)",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; for research",
        citation=(
            "A. Krizhevsky. Learning multiple layers of features from tiny images. "
            "Technical report, University of Toronto, 2009."
        ),
        files=(RemoteFile(archive, (url,), size, sha256),),
    )


CARDS: dict[str, DatasetCard] = {
    card.name: card
    for card in (
        DatasetCard(
            name="mnist",
            title="MNIST (IDX files)",
            homepage="http://yann.lecun.com/exdb/mnist/",
            licence="CC BY-SA 3.0",
            citation=(
                "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to "
                "document recognition. Proceedings of the IEEE 86(11):2278-2324, 1998."
            ),
            files=(
                _mnist(
                    "train-images-idx3-ubyte.gz",
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                _mnist(
                    "train-labels-idx1-ubyte.gz",
                    28_881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                _mnist(
                    "t10k-images-idx3-ubyte.gz",
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                _mnist(
                    "t10k-labels-idx1-ubyte.gz",
                    4_542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
        ),
        _cifar10(
            "python",
            170_498_071,
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
        _cifar10(
            "binary",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        DatasetCard(
            name="face-mask-detection",
            title="Face Mask Detection",
            homepage="https://www.kaggle.com/datasets/andrewmvd/face-mask-detection",
            licence="CC0 1.0",
            citation="andrewmvd. Face Mask Detection. Kaggle, 2020.",
            by_hand=(
                "run 'unmask data faces', or "
                "'kaggle datasets download andrewmvd/face-mask-detection'"
            ),
        ),
    )
}
