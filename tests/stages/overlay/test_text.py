"""Text on pictures is what the font can show, and as wide as was measured."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stages.overlay.text import OURS, pen_font, printable, shortened, signed, wrapped


def ink(text: str) -> bytes:
    page = Image.new("L", (40, 40), 0)
    ImageDraw.Draw(page).text((4, 4), text, fill=255, font=pen_font(24))
    return np.asarray(page).tobytes()


@pytest.mark.parametrize("letter", "µ±\N{MINUS SIGN}\N{MULTIPLICATION SIGN}…éßЖ")
def test_letters_of_pictures_have_glyphs(letter: str) -> None:
    assert printable(letter) == letter
    assert ink(letter) != ink("\U0010fffd"), "the box of what is missing"


def test_what_is_taken_for_granted_has_glyphs() -> None:
    """The font is not asked for these: it is all of printable Latin-1, and what we write ourselves."""
    assert len(OURS) > 180
    missing = ink("\U0010fffd")
    assert [letter for letter in OURS if ink(letter) == missing] == []


def test_letters_without_a_glyph_become_question_marks() -> None:
    assert printable("組織 1\udcff\n\tA") == "??" + " 1? A"


@pytest.mark.parametrize("text", ["W" * 300, "word " * 60, "i" * 300, "a " + "MW" * 90 + " b", "", "組" * 200])
def test_lines_are_no_wider_than_the_page_and_lose_nothing(text: str) -> None:
    lines = wrapped(text, 640, 15.3)
    assert all(pen_font(15.3).getlength(line) <= 640 for line in lines)
    assert "".join("".join(lines).split()) == "".join(printable(text).split())
    assert pen_font(13).getlength(shortened(text, 200, 13)) <= 200


def test_numbers_have_a_minus_sign_and_the_same_digits() -> None:
    assert signed(-0.0879, 0.15) == "\N{MINUS SIGN}0.09 ± 0.15"
    assert signed(2.8, 0.0) == "+2.80 ± 0.00"
    assert signed(-0.003, 0.001) == "\N{MINUS SIGN}0.0030 ± 0.0010", "not minus nothing"
    assert signed(-1e-9, 0.0) == "0.0000 ± 0.0000"
    assert signed(0.0, 0.0) == "0.00 ± 0.00"
    assert signed(2.8, None) == signed(2.8, float("inf")) == "+2.80"
