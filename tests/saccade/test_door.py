"""`import saccade`: light, complete, helpful where a name moved, and the same results as the command."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from makers import ROOT, spoil, tissue_pixels, write_slide
from matplotlib.figure import Figure

import saccade
from pipeline.output.attention_map import read_attention_zarr
from stages.prediction.chance import chance

HEAVY = ("numpy", "torch", "zarr", "dask", "distributed", "openslide", "matplotlib", "skimage", "scipy", "pydantic")


def python(code: str, *, cwd: Path) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(1, {str(ROOT)!r})\n{code}"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=120).stdout.strip()


def test_the_import_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
before = set(sys.modules)
import saccade
dir(saccade), saccade.__version__, saccade.UsageError
new = {name.split(".")[0] for name in set(sys.modules) - before}
"""
    assert python(f"{code}print(sorted(new & set({HEAVY!r})))", cwd=tmp_path) == "[]"
    ours = "print(sorted(name for name in sys.modules if name.split('.')[0] in ('saccade', 'pipeline', 'stages')))"
    assert python(f"import saccade\n{ours}", cwd=tmp_path) == "['saccade']"


def test_a_star_import_and_dir_give_every_public_name() -> None:
    namespace: dict[str, Any] = {}
    exec("from saccade import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(saccade.__all__) == set(dir(saccade))


@pytest.mark.slow
def test_type_checkers_see_every_public_name(tmp_path: Path) -> None:
    source = tmp_path / "user.py"
    names = [name for name in saccade.__all__ if name != "__version__"]
    source.write_text(
        "import saccade\n"
        + "".join(f"reveal_type(saccade.{name})\n" for name in names)
        + 'reveal_type(saccade.predict("a.svs", "m").probabilities)\nreveal_type(saccade.__version__)\nsaccade.opne\n'
    )
    mypy = pytest.importorskip("mypy.api")
    told = mypy.run([str(source), f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"])[0]
    revealed = re.findall(r'Revealed type is "(.*)"', told)
    assert len(revealed) == len(saccade.__all__) + 1
    assert not [what for what in revealed if what == "Any"]
    assert revealed[-2:] == ["dict[str, float]", "str"]
    assert 'Module has no attribute "opne"' in told


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("open_pyramid", "did you mean 'open_slide'?"),
        ("stages", "did you mean 'open_slide'?"),
        ("pipeline", "did you mean 'run'?"),
        ("virtual", "did you mean 'SlideStore'?"),
        ("find_target", "did you mean 'read_cohort'?"),
        ("Prediction", "did you mean 'SlidePrediction'?"),
        ("opn_slide", "did you mean 'open_slide'?"),
        ("slidestore", "did you mean 'SlideStore'?"),
        ("zzz", "dir(saccade) lists what it has"),
    ],
)
def test_a_name_that_is_not_there_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(saccade, name)
    assert str(caught.value) == f"saccade has no {name!r}; {hint}"


@pytest.mark.parametrize(
    "settings",
    [{}, {"samples": 40, "seed": 3}, {"tolerance": 0.05}, {"decide": 0.5}, {"scheme": "iid"}, {"mpp": 0.45}],
    ids=str,
)
def test_predict_finds_what_run_finds_to_the_last_bit(examples: Path, settings: dict[str, Any]) -> None:
    saccade.run("slides/odd.tif", "model.safetensors", out="results", **settings)
    found = saccade.predict("slides/odd.tif", "model.safetensors", **settings)
    folder = examples / "results" / "slides" / "odd"
    row = json.loads((folder / "prediction.json").read_text())["row"]
    assert {name: row[name] for name in found.columns()} == found.columns()
    attention, raster = read_attention_zarr(folder / "attention.zarr")
    assert raster == found.attention_raster
    assert np.array_equal(attention, found.attention)
    with h5py.File(folder / "samples.h5") as bag:
        assert np.array_equal(bag["features"][:], found.patch_features)
        assert np.array_equal(bag["weight"][:], found.patch_weights)
        assert np.array_equal(bag["cell"][:], found.patch_cells)


def test_run_and_the_command_write_the_same_table(examples: Path) -> None:
    saccade.run("slides", "model.safetensors", out="called", workers=0)
    command = [sys.executable, "-m", "saccade", "run", "slides", "--model", "model.safetensors", "--out", "typed"]
    command += ["--workers", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)

    def rows(out: str) -> list[dict[str, str]]:
        with (examples / out / "predictions.csv").open(newline="", encoding="utf-8") as file:
            return [{**row, "seconds": ""} for row in csv.DictReader(file)]

    assert rows("called") == rows("typed")


def test_predict_takes_what_was_opened_and_loaded(examples: Path) -> None:
    slide, model = saccade.open_slide("slides/even.tif"), saccade.load_model("model.safetensors")
    assert saccade.predict(slide, model).to_dict() == saccade.predict("slides/even.tif", "model.safetensors").to_dict()
    with pytest.raises(saccade.UsageError, match="give it to open_slide"):
        saccade.predict(slide, model, mpp=0.5)
    with pytest.raises(saccade.UsageError, match=r"call model\.eval\(\) first"):
        saccade.predict(slide, model.train())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 0}, "samples must be at least 1, found 0"),
        ({"tolerance": 0.0}, "tolerance must lie above 0"),
        ({"decide": 1.0}, "decide must lie between 0 and 1, found 1; such as 0.5"),
        ({"decide": 0.5, "risk": 0.5}, "risk must lie between 0 and 0.5, found 0.5"),
        ({"decide": 0.5, "tolerance": 0.1}, "tolerance and decide each say when to stop reading: give one of them"),
        ({"decide": 0.5, "positive": "z"}, "--positive: the model tells nothing of 'z', but of normal, tumour"),
        ({"decide": 0.5, "samples": 1}, "--samples 1 is too few for an interval: give at least 2"),
        (
            {"decide": 0.5, "samples": 7},
            "--samples 7 is too few to decide with a stated risk: give at least 8",
        ),
        ({"risk": 0.1}, "risk says nothing without decide"),
        ({"positive": "tumour"}, "positive says nothing without decide"),
    ],
    ids=str,
)
def test_what_the_command_line_refuses_is_refused(examples: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(saccade.UsageError, match=words):
        saccade.predict("slides/even.tif", "model.safetensors", **settings)
    with pytest.raises(saccade.UsageError, match=words):
        saccade.run("slides", "model.safetensors", out="results", **settings)
    assert not (examples / "results").exists()


def test_run_takes_the_cohort_that_was_read(examples: Path) -> None:
    cohort = saccade.read_cohort("slides")
    assert saccade.run(cohort, "model.safetensors", out="results", workers=0).ok == 3
    assert saccade.cache(cohort, out="pyramids", workers=0).failed == 0


class Tags(HTMLParser):
    """What a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert('x')</script>&.tif".replace("/", "\N{DIVISION SLASH}")
SHOWN = {"div", "img", "table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_a_slide_shows_its_thumbnail_and_facts(examples: Path) -> None:
    import base64
    import io

    from PIL import Image

    shown = Tags(saccade.open_slide("slides/odd.tif")._repr_html_())
    (source,) = shown.sources
    picture = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert max(picture.size) == 256
    assert picture.height / picture.width == pytest.approx(2401 / 1803, rel=0.01)
    assert np.asarray(picture).std() > 10  # tissue, not an empty frame
    for words in ("odd.tif", "generic-tiff", "1803 x 2401 px, 0.90 x 1.20 mm", "0.5 x 0.5 µm/px (file)", "450 x 600"):
        assert words in shown.text


def test_showing_a_slide_reads_one_coarse_level_only(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = saccade.open_slide("slides/even.tif")
    read: list[int] = []
    original = type(slide).read_boxes

    def counting(self: Any, level: int, *args: Any, **kwargs: Any) -> Any:
        read.append(level)
        return original(self, level, *args, **kwargs)

    monkeypatch.setattr(type(slide), "read_boxes", counting)
    assert "<img" in slide._repr_html_()
    assert read == [2]


def test_a_damaged_slide_shows_its_facts_and_what_is_wrong(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "cut.tif", tissue_pixels(900, 900), levels=1)
    slide = saccade.open_slide(path)
    for index in range(16):
        spoil(path, 0, index)
    shown = Tags(slide._repr_html_())
    assert "img" not in shown.tags
    assert "900 x 900 px" in shown.text
    assert re.search("no thumbnail.*(damaged|no longer)", shown.text)
    path.unlink()
    assert "no thumbnail" in saccade.SlideStore(slide)._slide._repr_html_()


def test_a_slide_without_resolution_says_so(tmp_path: Path) -> None:
    slide = saccade.open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 300), mpp=None))
    assert "resolution unknown" in repr(slide)
    assert "does not say its resolution" in slide._repr_html_()


def test_names_are_text_whatever_they_hold(examples: Path) -> None:
    (examples / "slides" / "even.tif").rename(EVIL)
    prediction = saccade.predict(EVIL, "model.safetensors")
    pages = [prediction._repr_html_(), prediction.slide._repr_html_()]
    (examples / "bad" / EVIL).parent.mkdir()
    (examples / "bad" / EVIL).write_text("not a slide")
    pages += [saccade.cache("bad", out="pyramids", workers=0)._repr_html_()]
    pages += [saccade.run("bad", "model.safetensors", out="results", workers=0)._repr_html_()]
    for page in pages:
        shown = Tags(page)
        assert set(shown.tags) <= SHOWN
        assert "alert('x')" in shown.text


def test_a_prediction_shows_its_classes_and_how_much_was_read(examples: Path) -> None:
    prediction = saccade.predict("slides/even.tif", "model.safetensors")
    shown = Tags(prediction._repr_html_())
    for name, probability in prediction.probabilities.items():
        assert f"{name}{chance(probability)}" in shown.text
    assert f"16 of {prediction.cells} patches read" in shown.text
    assert "16 of" in repr(prediction)
    assert f"{prediction.predicted} {chance(prediction.probabilities[prediction.predicted])}" in repr(prediction)
    assert repr(prediction).startswith("<SlidePrediction 'even.tif': ")


def test_a_model_says_in_a_line_what_it_is(examples: Path) -> None:
    assert (
        repr(saccade.load_model("model.safetensors"))
        == "<AttentionSampler of normal, tumour: small, 0.5 µm/px, 16 patches a slide>"
    )


def test_a_plot_is_shown_by_a_notebook_and_fits_into_axes_of_the_users(examples: Path) -> None:
    prediction = saccade.predict("slides/odd.tif", "model.safetensors")
    picture = prediction.plot()
    assert picture._repr_png_().startswith(b"\x89PNG")
    figure = Figure()
    axes = figure.subplots(1, 2)[1]
    assert prediction.plot(axes) is figure
    assert len(axes.collections[0].get_segments()) == 16  # the patches' outlines
    assert axes.get_xlim()[1] == pytest.approx(1803, abs=16)
    assert axes.get_aspect() == 1


def test_slides_and_predictions_pickle(examples: Path) -> None:
    prediction = saccade.predict("slides/even.tif", "model.safetensors")
    assert pickle.loads(pickle.dumps(prediction)).to_dict() == prediction.to_dict()


def test_training_and_caching_say_what_came_of_it(examples: Path) -> None:
    lines: list[str] = []
    summary = saccade.train("config.yaml", out="training", overrides=["training.epochs=1"], say=lines.append)
    assert any("epoch 1" in line for line in lines)
    assert summary.metrics["test"] == json.loads((examples / "training" / "metrics.json").read_text())["test"]
    assert "auroc" in summary._repr_html_()
    assert "1 a, 1 b" in summary._repr_html_()  # its slides, class by class
    (examples / "slides" / "bad.svs").write_text("not a slide")
    cached = saccade.cache("slides", out="pyramids", workers=0)
    assert (cached.total, cached.failed, list(cached.errors)) == (4, 1, ["bad"])
    assert "not a whole-slide image" in cached.errors["bad"]


def test_what_no_slide_could_be_predicted_with_is_refused_as_the_command_does(examples: Path) -> None:
    slide, model = saccade.open_slide("slides/even.tif"), saccade.load_model("model.safetensors")
    for options, words in (({"samples": 1}, "too few for an interval"), ({"scheme": "topk"}, "no intervals from")):
        with pytest.raises(saccade.UsageError, match=words):
            saccade.predict(slide, model, **options)


def test_a_slide_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(saccade.SlideError, match=r"no\.svs: no such file"):
        saccade.open_slide(tmp_path / "no.svs")


def test_a_folder_is_not_taken_for_a_damaged_model(tmp_path: Path) -> None:
    with pytest.raises(saccade.UsageError, match=r"is a folder without a model\.safetensors: give what"):
        saccade.load_model(tmp_path)
