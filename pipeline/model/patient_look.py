"""The first look at a patient: those at its slides, and what follows from all of them together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from pipeline.model.joint import joint_view
from pipeline.model.look import Look
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from stages.appearance import Likeness


class Seen(Protocol):
    """What a model is shown of: a slide's look, or a patient's."""

    @property
    def view(self) -> View:
        """The model's part of it."""
        ...

    def generator(self, seed: int, device: torch.device) -> torch.Generator:
        """Its own draws."""
        ...

    def likeness(self, model: SlideModel) -> Likeness:
        """How unlike the slides that a model was trained on it looks."""
        ...


@dataclass(frozen=True, slots=True)
class PatientLook:
    """A patient's slides as their thumbnails show them.

    Attributes:
        looks: at the slides, by their content in order, so that nothing depends on that of a table.
        apart: empty rows of cells between slides: `ModelSpec.apart`.
        views: the model's part of each look.
    """

    looks: tuple[Look, ...]
    apart: int
    views: tuple[View, ...]

    @property
    def view(self) -> View:
        """The model's part of all looks."""
        return joint_view(self.views, self.apart)

    def generator(self, seed: int, device: torch.device) -> torch.Generator:
        """The patient's own draws: they depend on the content of its slides, and of one slide are that slide's."""
        told = ":".join([str(seed), *(one.slide.facts.fingerprint for one in self.looks)])
        digest = hashlib.sha256(told.encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def likeness(self, model: SlideModel) -> Likeness:
        """That of the slide which is most unlike them."""
        return max(
            (one.likeness(model) for one in self.looks), key=lambda one: -1.0 if one.score is None else one.score
        )


def patient_look(
    looks: Mapping[str, Look],
    apart: int,
    *,
    lose: Callable[[str, str], None],
    shown: Callable[[Look], View] = lambda look: look.view,
) -> PatientLook:
    """The look at a patient.

    Args:
        looks: at its slides, by name; one at least.
        apart: see `PatientLook`.
        lose: told the name of a slide that cannot be read, and why, does without it from then on.
        shown: the model's part of a look.
    """

    def view(name: str) -> View:
        return replace(shown(looks[name]), lose=lambda reason: lose(name, reason))

    ordered: Sequence[str] = sorted(looks, key=lambda name: (looks[name].slide.facts.fingerprint, name))
    return PatientLook(tuple(looks[name] for name in ordered), apart, tuple(view(name) for name in ordered))
