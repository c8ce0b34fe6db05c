"""The weights that are shipped: small enough, the bytes their card vouches for, and a card that says what it must."""

from __future__ import annotations

from backend.instances import ROLES
from backend.pairs import CARD, STARTER, read_card, weights_name
from backend.store import sha256_of

LIMIT = 40 * 1024 * 1024  # bytes, all files together


def test_the_folder_holds_what_it_should_and_no_more() -> None:
    names = {path.name for path in STARTER.iterdir()}
    assert names == {*(weights_name(role) for role in ROLES), CARD, "CARD.md"}
    assert sum(path.stat().st_size for path in STARTER.iterdir()) <= LIMIT


def test_the_bytes_are_those_of_the_card() -> None:
    card = read_card()
    found = [sha256_of(STARTER / weights_name(role)) for role in ROLES]
    assert found == [card.all_cells_sha256, card.infected_sha256]
    assert card.about["trained_on"]


def test_the_card_names_licence_command_use_and_scores() -> None:
    card, text = read_card(), (STARTER / "CARD.md").read_text(encoding="utf-8")
    for what in ("CC BY-NC-SA 3.0", "Ljosa", "1804.09548", "diagnose", card.about["command"], card.infected_sha256):
        assert what in text, what
    assert "Measured on" in text
