"""The section `view`: at which physical scales a slide is seen."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipeline.config.section import Section


class ViewConfig(Section):
    """At which physical scales the slide is seen; micrometres, because magnifications mean different things."""

    attention_mpp: float = Field(
        default=8.0,
        gt=0,
        description="Micrometres per pixel of the thumbnail that attention looks at: coarser costs less to read and "
        "hides more. The cell pitch (patch_px * patch_mpp) must be a whole multiple of it, so that cells tile the "
        "thumbnail.",
    )
    patch_mpp: float = Field(
        default=1.0,
        gt=0,
        description="Micrometres per pixel of the patches: as fine as the encoder needs in order to tell the classes.",
    )
    patch_px: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Pixels along a patch's side; with patch_mpp it sets how much tissue one read covers.",
    )

    @property
    def pitch_um(self) -> float:
        """Micrometres along a cell's side: each cell of the attention map owns exactly one patch."""
        return self.patch_px * self.patch_mpp

    @property
    def cell_px(self) -> int:
        """Thumbnail pixels along a cell's side: the stride of the attention map over the thumbnail."""
        return round(self.pitch_um / self.attention_mpp)

    @model_validator(mode="after")
    def _cells_tile_the_thumbnail(self) -> Self:
        if self.attention_mpp < self.patch_mpp:
            raise ValueError(
                f"attention_mpp must not be finer than patch_mpp, found {self.attention_mpp:g} and {self.patch_mpp:g}; "
                f"attention_mpp {self.pitch_um / 8:.10g} would make cells of 8 thumbnail pixels"
            )
        ratio = self.pitch_um / self.attention_mpp
        whole = max(1, round(ratio))
        if abs(ratio - whole) > 1e-6:
            raise ValueError(
                f"the cell pitch, patch_px * patch_mpp = {self.pitch_um:g} um, must be a whole multiple of "
                f"attention_mpp, found {self.pitch_um:g} / {self.attention_mpp:g} = {ratio:.6g}; "
                f"the nearest attention_mpp that fits is {self.pitch_um / whole:.10g}"
            )
        return self
