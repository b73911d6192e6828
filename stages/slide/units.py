"""Units of length as metadata name them."""

from __future__ import annotations

_NAMES = {
    1e-6: ("pm", "picometer", "picometre"),
    1e-4: ("å", "angstrom"),
    1e-3: ("nm", "nanometer", "nanometre"),
    1.0: ("µm", "μm", "um", "micron", "micrometer", "micrometre"),
    1e3: ("mm", "millimeter", "millimetre"),
    1e4: ("cm", "centimeter", "centimetre"),
    1e5: ("dm", "decimeter", "decimetre"),
    1e6: ("m", "meter", "metre"),
    25.4: ("thou", "mil"),
    25_400 / 72: ("pt", "point"),
    25_400 / 12: ("li", "line"),
    25_400.0: ("in", "inch"),
    304_800.0: ("ft", "foot"),
    914_400.0: ("yd", "yard"),
}
_MICROMETRES = {name: length for length, names in _NAMES.items() for name in names}
"""Of each unit, by its symbol and its names; the two mu look alike and are different letters."""


def micrometres(unit: str) -> float | None:
    """How long a unit is, in µm; None for those that are no lengths, as "pixel"."""
    name = unit.strip().casefold()
    return _MICROMETRES.get(name, _MICROMETRES.get(name.removesuffix("s")))
