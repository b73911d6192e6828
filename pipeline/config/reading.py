"""The section `reading`: what is kept of slides."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from pipeline.config.section import Section


class ReadingConfig(Section):
    """What is kept of slides; the model does not depend on it."""

    cache: Path | None = Field(
        default=None,
        strict=False,
        description="Folder, relative to this file, that keeps what was read of slides in formats whose tiles only "
        "OpenSlide decodes (NDPI, MRXS, JPEG 2000 ...), so that it is there in the next epoch; several trainings may "
        "share it. Unset: nothing is kept.",
    )
    cache_gb: float = Field(
        default=50.0,
        gt=0,
        description="Gigabytes that the cache may fill, some 100 kB for 256 x 256 pixels; then the least recently used "
        "goes.",
    )

    patches_gb: float = Field(
        default=0.1,
        ge=0,
        description="Gigabytes of memory for patches that an encoder which learns was shown, 0.05 MB for 128 x 128 "
        "pixels: what is drawn again is not read again, and of slides of little tissue all is read at once. More where "
        "the tissue of all slides nearly fits. 0: nothing is kept.",
    )

    features: Path | None = Field(
        default=None,
        strict=False,
        description="Folder, relative to this file, that keeps what a frozen encoder made of patches, for all "
        "trainings and runs of a machine; unset: $SACCADE_CACHE, else the user's cache folder.",
    )
    features_gb: float = Field(
        default=20.0, ge=0, description="Gigabytes that it may fill, some 2.5 kB for a patch; 0: nothing is kept."
    )
