"""Which channels are a colour picture's, by name or by what they are shown in; and places along other axes."""

from __future__ import annotations

import pytest

from stages.slide.channels import Channel, choose_channels, choose_place, describe_channel
from stages.slide.facts import SlideError

PLAIN = Channel("", None, plain=True)
RGB = tuple(Channel(name, name, plain=False) for name in ("red", "green", "blue"))
MARKER = Channel("DAPI", None, plain=False)


@pytest.mark.parametrize(
    ("name", "tint", "light", "expected"),
    [
        ("", None, False, PLAIN),
        ("Channel 2", 0xFFFFFF, False, PLAIN),
        ("C:0:1", 0x808080, False, PLAIN),
        ("Red ", None, False, Channel("Red", "red", plain=False)),
        ("", 0xFF0000, False, Channel("", "red", plain=False, tint=0xFF0000)),
        ("", 0x00FFFF, False, Channel("", None, plain=False, tint=0x00FFFF)),
        ("DAPI", 0x0000FF, False, Channel("DAPI", None, plain=False, tint=0x0000FF)),
        ("", 0x0000FF, True, Channel("", None, plain=False, tint=0x0000FF)),
        ("", None, True, Channel("", None, plain=False)),
    ],
)
def test_a_channel_is_a_colour_by_name_or_by_what_it_is_shown_in(
    name: str, tint: int | None, light: bool, expected: Channel
) -> None:
    """A marker that is shown in blue is no blue light."""
    assert describe_channel(name, tint, light=light) == expected


@pytest.mark.parametrize(
    ("count", "channels", "chosen", "said"),
    [
        (1, (MARKER,), (0,), []),
        (3, (RGB[2], RGB[0], RGB[1]), (1, 2, 0), []),
        (4, (MARKER, *RGB), (1, 2, 3), ["of its 4 channels red, green and blue are read"]),
        (3, (), (0, 1, 2), []),
        (3, (PLAIN,) * 3, (0, 1, 2), []),
    ],
)
def test_red_green_and_blue_are_found(
    count: int, channels: tuple[Channel, ...], chosen: tuple[int, ...], said: list[str]
) -> None:
    warnings: list[str] = []
    assert choose_channels(count, channels, warnings) == chosen
    assert warnings == said


@pytest.mark.parametrize(
    ("count", "channels", "unnamed", "names"),
    [
        (3, (PLAIN, MARKER, PLAIN), True, "number 1, DAPI, number 3"),
        (3, (PLAIN,) * 3, False, "number 1, number 2, number 3"),
        (2, (), True, "number 1, number 2"),
        (2, (PLAIN, Channel("", None, plain=False, tint=0x00FFFF)), True, "number 1, #00ffff"),
        (3, (RGB[0], RGB[0], RGB[2]), True, "red, red, blue"),
    ],
)
def test_other_channels_are_refused_by_their_names(
    count: int, channels: tuple[Channel, ...], unnamed: bool, names: str
) -> None:
    with pytest.raises(SlideError, match=rf"it has {count} channels \({names}\) that are not red, green and blue: "):
        choose_channels(count, channels, [], unnamed=unnamed)


def test_the_middle_of_focal_planes_and_the_first_point_in_time_are_chosen_and_said() -> None:
    warnings: list[str] = []
    assert [choose_place(*place, warnings) for place in (("z", 5), ("t", 3), ("r", 1), ("r", 2))] == [2, 0, 0, None]
    assert warnings == [
        "of its 5 focal planes the middle one, number 3, is read",
        "of its 3 points in time the first is read",
    ]
