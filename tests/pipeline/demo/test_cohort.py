"""The demo's cohort: real files, a fair split, a lesion that only high resolution shows."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from makers import Pixels, pixels, thumbnail
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.demo.cohort import make_cohort
from pipeline.demo.painting import render, write_slide
from pipeline.demo.scene import CLASSES, MPP, Kind, Scene, make_scene
from pipeline.errors import UsageError

SEED, SIZE, SLIDES = 77, 896, 120
THUMBNAIL_PX = 16  # level-0 pixels per pixel of an 8 um thumbnail


pytestmark = pytest.mark.slow  # makes a cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a cohort that two processes made."""
    return make_cohort(tmp_path_factory.mktemp("cohort"), slides=SLIDES, seed=SEED, size=SIZE, workers=2)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scenes(table: Path) -> list[Scene]:
    return [make_scene(SEED, i, label=row["label"], size=SIZE) for i, row in enumerate(rows(table))]


def test_patients_are_disjoint_between_splits_and_labels_balanced(cohort: Path) -> None:
    table = rows(cohort)
    for patient in {r["patient"] for r in table}:
        assert len({r["split"] for r in table if r["patient"] == patient}) == 1
    for split in ("train", "val", "test"):
        labels = [r["label"] for r in table if r["split"] == split]
        assert labels.count("normal") == labels.count("tumour") > 0


def test_openslide_reads_size_resolution_and_colour(cohort: Path) -> None:
    for row, scene in zip(rows(cohort)[:3], scenes(cohort), strict=False):
        with openslide.OpenSlide(cohort.parent / row["slide"]) as slide:
            assert slide.dimensions == (scene.width, scene.height)
            assert min(slide.dimensions) >= SIZE
            assert slide.level_count >= 2
            for axis in "xy":
                assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(MPP, rel=1e-6)
            read = pixels(slide, 0, 0, scene.width, scene.height)
        assert np.abs(read - render(scene)).mean() < 6  # JPEG with halved colour resolution


def test_each_level_is_the_mean_of_the_one_before(tmp_path: Path) -> None:
    image = np.kron(np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5, 1), np.ones((164, 164, 3), np.uint8))[:-3, :-7]
    write_slide(tmp_path / "a.tif", image)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.level_dimensions == ((813, 817), (204, 205))
        low = np.asarray(slide.read_region((0, 0), 1, (204, 205)).convert("RGB"), np.float64)
    expected = image[: 817 // 4 * 4, : 813 // 4 * 4].reshape(204, 4, 203, 4, 3).mean(axis=(1, 3))
    assert np.abs(low[:204, :203] - expected).mean() < 1.5


def test_tumour_slides_and_only_they_have_a_small_lesion(cohort: Path) -> None:
    for scene in scenes(cohort):
        path = cohort.parent / "lesions" / f"{scene.name}.geojson"
        assert path.exists() == (scene.label == "tumour")
        if not path.exists():
            continue
        (feature,) = json.loads(path.read_text(encoding="utf-8"))["features"]
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert (ring[0] == ring[-1]).all()
        x, y = ring[:-1].T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert area == pytest.approx(scene.lesions[0].area, rel=0.01)
        assert 0.01 < area / scene.tissue_area <= 0.03
        assert feature["properties"]["objectType"] == "annotation"


def test_tissue_covers_a_quarter_to_under_half_of_a_slide() -> None:
    scenes = [make_scene(SEED, i, label=CLASSES[0]) for i in range(20)]
    assert all(0.25 < scene.tissue_area / (scene.width * scene.height) < 0.46 for scene in scenes)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_does_not() -> None:
    first, again, other = (render(make_scene(seed, 3, label="tumour", size=600)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


@pytest.mark.parametrize("kind", ["spots", "hidden"])
def test_only_the_lesion_depends_on_the_label(kind: Kind) -> None:
    normal, tumour = (make_scene(1, 3, label=label, size=SIZE, kind=kind) for label in CLASSES)
    differ = (render(normal).astype(int) != render(tumour)).any(axis=2)
    y, x = np.nonzero(differ)
    assert y.size > 0
    (lesion,) = tumour.lesions
    assert (np.hypot(x - lesion.x, y - lesion.y) < lesion.reach + 60).all()


def test_a_second_run_makes_only_what_is_missing(cohort: Path) -> None:
    folder = cohort.parent / "slides"
    kept, lost = folder / "slide-000.tif", folder / "slide-001.tif"
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    seen: list[tuple[int, int]] = []
    make_cohort(
        cohort.parent,
        slides=SLIDES,
        seed=SEED,
        size=SIZE,
        workers=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(SLIDES - 1, SLIDES), (SLIDES, SLIDES)]
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    assert {path.name for path in folder.iterdir()} == {f"slide-{i:03d}.tif" for i in range(SLIDES)}


def test_two_processes_make_the_same_slides_as_one(cohort: Path, tmp_path: Path) -> None:
    for row, scene in list(zip(rows(cohort), scenes(cohort), strict=True))[::30]:
        write_slide(tmp_path / "one.tif", render(scene))
        assert (tmp_path / "one.tif").read_bytes() == (cohort.parent / row["slide"]).read_bytes()


class StoppedError(Exception):
    pass


def stop(done: int, total: int) -> None:
    raise StoppedError


@pytest.mark.parametrize("other", [{"seed": 1}, {"size": 700}, {"slides": 20}, {"kind": "hidden"}], ids=str)
def test_slides_of_another_cohort_are_not_taken_for_this_one(tmp_path: Path, other: dict[str, Any]) -> None:
    """Already when the first run ended before its first slide."""
    made: dict[str, Any] = {"seed": 0, "size": 600, "slides": 16, "kind": "spots"}
    with pytest.raises(StoppedError):
        make_cohort(tmp_path, **made, workers=1, progress=stop)
    assert list((tmp_path / "slides").iterdir()) == []
    before = (tmp_path / "cohort.json").read_bytes()
    (name, value), *_ = other.items()
    with pytest.raises(UsageError, match=rf"{name} {value}.*found.*{name} {made[name]}.*another folder or remove"):
        make_cohort(tmp_path, **{**made, **other}, workers=1)
    assert (tmp_path / "cohort.json").read_bytes() == before
    assert list((tmp_path / "slides").iterdir()) == []
    with pytest.raises(StoppedError):  # and the first cohort may go on
        make_cohort(tmp_path, **made, workers=1, progress=stop)


def test_a_cohort_from_before_there_were_kinds_goes_on(tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text('{"format": 1, "seed": 0, "size": 600, "slides": 16}')
    with pytest.raises(StoppedError):
        make_cohort(tmp_path, slides=16, size=600, workers=1, progress=stop)
    with pytest.raises(UsageError, match="kind hidden, found one made with kind spots"):
        make_cohort(tmp_path, slides=16, size=600, kind="hidden", workers=1)


def test_slides_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "slide-003.tif").touch()
    with pytest.raises(UsageError, match=r"slides without a readable cohort\.json"):
        make_cohort(tmp_path, slides=16, size=600, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["slides"]


@pytest.mark.parametrize("slides", [14, 18, 0])
def test_a_cohort_that_cannot_be_balanced_is_refused(tmp_path: Path, slides: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4 and at least 16"):
        make_cohort(tmp_path, slides=slides)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of spots, hidden; found seen"):
        make_cohort(tmp_path, kind="seen")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# --- no trivial cue: the label must not be predictable from anything but the high-resolution texture of the blobs


class Cues:
    """What somebody lazy could measure in the files: slide-level cues, blob-level thumbnail cues, blob texture."""

    def __init__(self, table: Path) -> None:
        slide, blob, texture, blob_label = [], [], [], []
        for row, scene in zip(rows(table), scenes(table), strict=True):
            path = table.parent / row["slide"]
            with openslide.OpenSlide(path) as file:
                low = thumbnail(pixels(file, 0, 0, *file.level_dimensions[1], level=1), THUMBNAIL_PX // 4)
                slide.append(self._slide(scene, low, path.stat().st_size))
                for suspect in scene.suspects:
                    side = int(suspect.radius * 1.2) // THUMBNAIL_PX * THUMBNAIL_PX
                    crop = pixels(file, int(suspect.x) - side // 2, int(suspect.y) - side // 2, side, side)
                    low = thumbnail(crop, THUMBNAIL_PX)
                    blob.append([*low.mean((0, 1)), *low.std((0, 1))])
                    texture.append(np.abs(np.diff(crop.mean(2), axis=1)).mean() / crop.mean(2).std())
                    blob_label.append(suspect in scene.lesions)
        self.slide, self.blob, self.texture = np.array(slide), np.array(blob), np.array(texture)
        self.label = np.array([row["label"] == CLASSES[1] for row in rows(table)], int)
        self.blob_label = np.array(blob_label, int)

    @staticmethod
    def _slide(scene: Scene, low: Pixels, size: int) -> list[float]:
        tissue = low.mean(2) < 220
        y, x = np.nonzero(tissue)
        blue = tissue & (low[..., 2] - low[..., 0] > 15)
        blue_y, blue_x = np.nonzero(blue)
        return [
            *low.mean((0, 1)),
            *low.std((0, 1)),
            *low[tissue].mean(0),
            *low[tissue].std(0),
            size,
            size / tissue.sum(),
            tissue.sum(),
            blue.sum(),
            y.mean(),
            x.mean(),
            blue_y.mean(),
            blue_x.mean(),
            scene.width,
            scene.height,
        ]


def auroc(cues: NDArray[np.float64], label: NDArray[np.int_]) -> tuple[float, float]:
    """Cross-validated AUROC of a logistic regression, and its standard error when there is nothing to find."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, class_weight="balanced"))
    score = cross_val_predict(model, cues, label, cv=10, method="decision_function")
    positive = int(label.sum())
    negative = label.size - positive
    return float(roc_auc_score(label, score)), float(np.sqrt((label.size + 1) / (12 * positive * negative)))


@pytest.fixture(scope="module")
def cues(cohort: Path) -> Cues:
    return Cues(cohort)


def test_no_slide_level_cue_predicts_the_label(cues: Cues) -> None:
    """Colour, spread, file size, bytes per tissue, area, place of the tissue and of the suspicious blobs."""
    value, error = auroc(cues.slide, cues.label)
    assert value < 0.5 + 3 * error


def test_a_thumbnail_does_not_tell_a_lesion_from_a_decoy(cues: Cues) -> None:
    value, error = auroc(cues.blob, cues.blob_label)
    assert value < 0.5 + 3 * error


def test_high_resolution_does(cues: Cues) -> None:
    """The control: the same regression finds the label from the one thing that does depend on it."""
    assert auroc(cues.texture[:, None], cues.blob_label)[0] > 0.95
    assert auroc(cues.texture.reshape(-1, 3).min(axis=1, keepdims=True), cues.label)[0] > 0.95
