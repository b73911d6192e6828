"""First looks at a cohort's slides, kept between epochs within bounds; and which slides are left out, and why."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import is_exhaustion, reason_of
from pipeline.model.look import Look, look
from pipeline.model.patient_look import Seen, patient_look
from pipeline.model.slide_model import ENCODER_BLOCK, SlideModel
from stages.amounts import counted
from stages.appearance import Appearance
from stages.bags.bag_slide import BagSlide, FeatureMemory
from stages.budget import available_bytes
from stages.prior import Prior
from stages.pyramid.chunk_cache import ChunkCache
from stages.pyramid.open import ZarrSlide
from stages.pyramid.shards import OPEN_SHARDS
from stages.slide.facts import SlideError, SlideFacts
from stages.slide.protocol import Slide

LOOKS_BYTES = 2**31
"""Thumbnails and masks kept in memory; beyond it the least recently used slides are looked at again."""
OPEN_FILES = 256
"""Files that kept slides hold open, at most and by estimate; the others open theirs again when they are read, which
takes some ten milliseconds."""


BAG_BYTES = 2**33
"""Features of bags kept in memory, at most; and a quarter of what there is when training begins, at most."""


@dataclass(frozen=True, slots=True)
class Known:
    """What another process has to know of looks, to look at the same slides.

    Attributes:
        excluded, fingerprints, facts: as `Looks` has them.
        verify: whether it goes by every byte of the slides.
    """

    excluded: dict[str, str]
    fingerprints: dict[str, str]
    facts: dict[str, SlideFacts]
    verify: bool


class Looks:
    """A cohort's first looks. A slide that is left out raises its reason from then on.

    Args:
        model: what it is looked at for; only its geometry counts.
        cache: where pixels of slow levels are kept.
        say: told of each slide that is left out, and of what is wrong with the others.
        strict: leave out slides whose resolution something else in the file contradicts.
        prior: what says where to draw, beside the model; None: nothing does.
        verify: go by every byte of the slides.
        known: what was found before, by another process; None: nothing.

    Attributes:
        excluded: why slides were left out, by name.
        fingerprints: of those that were looked at, by name.
        facts: of the same, as they were first looked at.
        appearances: of the same, but for bags, which show none.
    """

    def __init__(
        self,
        model: SlideModel,
        cache: ChunkCache | None,
        say: Callable[[str], None],
        *,
        strict: bool = False,
        prior: Prior | None = None,
        verify: bool = False,
        known: Known | None = None,
    ) -> None:
        before = known or Known({}, {}, {}, verify)
        self.facts, self._verify = dict(before.facts), before.verify
        self.excluded, self.fingerprints = dict(before.excluded), dict(before.fingerprints)
        self.appearances: dict[str, Appearance] = {}
        self._model, self._cache, self._say, self._strict, self._prior = model, cache, say, strict, prior
        self._kept: OrderedDict[str, Look] = OrderedDict()
        self._memory = FeatureMemory(min(BAG_BYTES, (available_bytes() or BAG_BYTES) // 4))
        self._open: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._whole: dict[str, bool] = {}

    def __call__(self, slide: CohortSlide) -> Look:
        """The slide's look.

        Raises:
            SlideError: it was left out, cannot be looked at, or its file was replaced since the first look.
        """
        name = slide.slide_id
        if name in self.excluded:
            raise SlideError(self.excluded[name])
        if name not in self._kept:
            self._keep(name, self._fresh(slide))
        self._kept.move_to_end(name)
        found = self._kept[name]
        self._open[name] = _most_files(found.slide)
        self._open.move_to_end(name)
        while sum(self._open.values()) > OPEN_FILES and len(self._open) > 1:
            oldest, _ = self._open.popitem(last=False)
            self._kept[oldest] = self._kept[oldest].at_rest()
        return found

    def seen(self, row: CohortSlide) -> Seen:
        """The look at a slide, or at those of a patient's slides that can be looked at: the others are left out.

        Raises:
            SlideError: see `__call__`; of a patient, where no slide is left.
        """
        if not row.members:
            return self(row)
        found = {}
        for slide in row.members:
            if slide.slide_id not in self.excluded:
                try:
                    found[slide.slide_id] = self(slide)
                except SlideError as exc:
                    self.leave_out(slide, str(exc))
        if not found:
            raise SlideError(str(self.lost(row)))
        members = {slide.slide_id: slide for slide in row.members}
        return patient_look(
            found, self._model.spec.apart, lose=lambda name, reason: self.leave_out(members[name], reason)
        )

    def lost(self, row: CohortSlide) -> str | None:
        """Why a slide is left out, or the first of a patient of whose slides all are; None of others."""
        why = [self.excluded.get(slide.slide_id) for slide in row.each]
        if not row.members or None in why:
            return why[0] if not row.members else None
        return f"none of its slides is left: {row.members[0].slide_id}: {why[0]}"

    def first(self, slides: Sequence[CohortSlide]) -> None:
        """Look at all of them; those that cannot be are left out: one bad slide must not cost the cohort."""
        for number, slide in enumerate(slides, 1):
            try:
                for doubt in self(slide).slide.facts.doubts:
                    self._say(f"warning: {slide.slide_id}: {doubt}")
            except SlideError as exc:
                self.leave_out(slide, str(exc), at=f"[{number}/{len(slides)}] ")
        left_out = len(self.excluded)
        self._say(f"looked at {counted(len(slides), 'slide')}: {len(slides) - left_out} usable, {left_out} left out")

    def leave_out(self, slide: CohortSlide, reason: str, *, at: str = "") -> None:
        """Do without a slide, or all of a patient's, from now on, and say why."""
        for one in slide.each:
            if one.slide_id not in self.excluded:
                self.excluded[one.slide_id] = reason
                self._say(f"{at}left out: {one.slide_id}: {reason}")
                self._drop(one.slide_id)

    @property
    def known(self) -> Known:
        """What another process has to know, as it is now."""
        return Known(dict(self.excluded), dict(self.fingerprints), dict(self.facts), self._verify)

    def usable(self) -> dict[str, SlideFacts]:
        """The facts of the slides that are not left out, by name."""
        return {name: facts for name, facts in self.facts.items() if name not in self.excluded}

    def reads_whole(self, slide: CohortSlide) -> bool:
        """Whether every patch of a slide can be read now, as the model reads it; found out once."""
        if slide.slide_id not in self._whole:
            try:
                view = self(slide).view
                cells, read = np.flatnonzero(view.tissue), view.features or view.patches
                for part in np.array_split(cells, math.ceil(len(cells) / ENCODER_BLOCK)):
                    np.asarray(read(part))
                self._whole[slide.slide_id] = True
            except (SlideError, OSError) as exc:
                if is_exhaustion(exc):
                    raise
                self._whole[slide.slide_id] = False
        return self._whole[slide.slide_id]

    def _fresh(self, slide: CohortSlide) -> Look:
        try:
            if slide.problem:
                raise SlideError(slide.problem)
            prior = None if self._prior is None else self._prior.of(slide.slide_id)
            found = look(slide.path, self._model, mpp=slide.mpp, cache=self._cache, prior=prior, verify=self._verify)
            if self._strict:
                found.slide.facts.refuse_doubt()
            if isinstance(found.slide, BagSlide):
                found.slide.memory = self._memory
        except Exception as exc:
            if is_exhaustion(exc):
                raise
            raise SlideError(reason_of(exc)) from exc
        fingerprint = found.slide.facts.fingerprint
        first = self.facts.setdefault(slide.slide_id, found.slide.facts)
        if self.fingerprints.setdefault(slide.slide_id, fingerprint) != fingerprint or not (
            found.slide.facts.unchanged(first.revision)
        ):
            raise SlideError(f"{slide.path} was replaced while training went on: start again with the new file")
        if slide.slide_id not in self.appearances and (shown := found.appearance) is not None:
            self.appearances[slide.slide_id] = shown
        return found

    def _keep(self, name: str, fresh: Look) -> None:
        self._kept[name] = fresh
        self._bytes += fresh.nbytes
        while self._bytes > LOOKS_BYTES and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: str) -> None:
        self._open.pop(name, None)
        if name in self._kept:
            self._bytes -= self._kept.pop(name).nbytes


def _most_files(slide: Slide) -> int:
    """How many files reading a slide leaves open, at most."""
    if isinstance(slide, BagSlide):
        return 0
    if isinstance(slide, ZarrSlide):
        return sum(min(OPEN_SHARDS, math.prod(layout.grid)) for layout in slide.layouts)
    return 1 + len(slide.facts.levels)
