import re

from unmask.data.cards import CARDS


def test_every_card_says_what_it_must() -> None:
    for name, card in CARDS.items():
        assert card.name == name
        assert card.licence
        assert card.citation
        assert card.homepage.startswith(("http://", "https://"))
        # Either it can be downloaded, or it says how to get it: never both, never neither.
        assert bool(card.files) != bool(card.by_hand)


def test_every_file_can_be_verified() -> None:
    files = [file for card in CARDS.values() for file in card.files]
    assert len({file.sha256 for file in files}) == len(files) == 6
    for file in files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.size > 0
        assert all(url.startswith("https://") and url.endswith(file.name) for url in file.urls)
