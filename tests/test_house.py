"""The house's own rules: every file has its place, imports run one way, help answers at once."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from makers import ROOT

from pipeline.cohort.folds import check_folds
from pipeline.cohort.training_table import read_training_table
from pipeline.config import load_config

# Reading before writing, the flow's order: a room may import only rooms before it, a file only files before it.
HOUSE: dict[str, dict[str, tuple[str, ...]]] = {
    "stages": {
        "geometry": (),
        "install": (),
        "amounts": (),
        "passing": (),
        "disk": (),
        "heap": (),
        "object_store": (),
        "place": (),
        "lease": (),
        "file_cache": (),
        "html": (),
        "torchvision": (),
        "sampling": ("walk", "designs", "blocks", "schemes", "draw", "estimate", "looks", "strata"),
        "slide": (
            *(
                "jpeg",
                "jpeg_parts",
                "tiles",
                "levels",
                "resolution",
                "dicom_header",
                "revision",
                "companions",
                "facts",
                "units",
                "channels",
                "card",
                "protocol",
                "overlaps",
                "tiff",
                "dicom",
                "kinds",
                "ome",
                "samples",
                "planes",
                "axes",
                "picture",
                "beyond",
                "tifffile_slide",
                "files",
                "reduced",
                "area_means",
                "render",
                "standalone",
            ),
        ),
        "bags": ("bag", "grid", "bag_slide", "common"),
        "tissue": ("strips", "morphology", "thumbnail", "fill", "background", "signal", "foreign", "mask", "quality"),
        "budget": (),
        "appearance": (),
        "patch_memory": (),
        "pyramid": (
            *(
                "jpeg_metadata",
                "layout",
                "record",
                "ahead",
                "shards",
                "codec",
                "multiscales",
                "object_array",
                "arrays",
                "levels",
            ),
            *("foreign", "open", "store", "chunk_cache"),
            *("chunks", "plan", "format", "copying", "transaction", "upload", "task", "cache", "scanned", "export"),
        ),
        "attention": (),
        "patches": (),
        "agreement": (),
        "given_map": (),
        "given_places": (),
        "given": (),
        "augmentation": (),
        "encoder": (
            *("patch_encoder", "built_in", "timm_models", "build", "card", "registry", "hub", "weights"),
            *(
                "layers",
                "lite0",
                "backbone",
                "sources",
                "layouts",
                "vit",
                "released",
                "timm_backbone",
                "exported",
                "load",
                "named",
            ),
            *("tuned", "feature_table", "feature_store"),
        ),
        "prior": (),
        "context": (),
        "evidence": (),
        "mil": ("sizes", "pooling", "transmil", "contextual", "build", "teacher", "weights", "student"),
        "prediction": (
            "chance",
            "kinds",
            "readout",
            "intervals",
            "predict",
            "attribution",
            "interpolation",
            "stopping",
            "conformal",
        ),
        "overlay": (
            *("outlines", "attention_map", "geojson", "text", "jpeg", "insets", "page", "picture", "figure"),
            "evidence_picture",
            "gallery",
        ),
        "exports": (
            *("h5", "bags", "qupath", "heat_map", "label_image", "spatial"),
            *("dicom_identity", "dicom_source", "dicom_map", "dicom_annotations", "dicom"),
        ),
    },
    "pipeline": {
        "errors": (),
        "device": (),
        "version": (),
        "garbage": (),
        "parent": (),
        "shipped": (),
        "config": (
            *("section", "cohort", "view", "attention", "sampling", "encoder", "model", "training", "augmentation"),
            *("reading", "sections", "distil", "wording", "loading"),
        ),
        "statistics": (
            *("intervals", "groups", "ranking", "curves", "power", "metrics", "multilabel", "ordinal", "regression"),
            *("survival", "thresholds", "paired"),
        ),
        "task": ("task", "classes", "labels", "value", "survival", "build"),
        "output": (
            *("documents", "failures", "folder", "table", "run_record", "slide_folder", "attention_map", "bags", "log"),
        ),
        "cohort": (
            *("files", "spelling", "rows", "columns", "given_splits", "cohort", "table", "target", "training_table"),
            *("labels", "splits", "folds", "patients"),
        ),
        "stopwatch": (),
        "model": (
            "quality",
            "label_calibration",
            "spec",
            "header",
            "stack",
            "values",
            "joint",
            "reading",
            "regions",
            "reading_on",
            "slide_model",
            "reading_more",
            "sampler",
            "frozen",
            "surveyed",
            "evidence_model",
            "exhaustive_model",
            "fold_ensemble",
            "distilled_model",
            "build",
            "tiles",
            "look",
            "patient_look",
            "checkpoint",
        ),
        "refer": ("label_set", "measure", "agreement", "scores", "referral", "calibrate"),
        "asked": (),
        "predict": (),
        "predict_patient": (),
        "read_more": (),
        "words": (),
        "report": (
            *("page", "cohort_gallery", "embedded", "figures", "slide_sheet", "plots", "curves", "learning", "labels"),
            *("slides", "summary", "report", "training"),
        ),
        "train": (
            *(
                "share",
                "processes",
                "looks",
                "key",
                "checkpoints",
                "job",
                "calibrate",
                "slides",
                "warm_up",
                "first_guess",
                "bagging",
                "rates",
            ),
            *(
                "curve",
                "curve_picture",
                "journal",
                "read_ahead",
                "watch",
                "steps",
                "fit",
                "held_out",
                "operating",
                "verdict",
                "baselines",
                "comparison",
                "compare",
                "spec",
                "from_bags",
                "fit_job",
                "calibrate_job",
                "ensemble",
                "train",
            ),
        ),
        "distil": ("bags", "teacher", "student", "fidelity", "distil"),
        "bench": ("meter", "whole", "ways", "slide", "table", "recommend", "picture", "bench"),
        "run": (
            *("interrupt", "process", "child", "pool", "remote", "address", "handshake", "crew", "scheduler"),
            *("workers", "ready", "pictures", "artefacts", "stale", "outage", "counting", "whole", "keys", "finished"),
            *("earlier", "slide", "patient", "combine", "books", "names", "run"),
        ),
        "view": (
            *("frame", "tiles", "outlines", "layers", "samples", "thumbnail", "run_folder", "findings", "pixels"),
            *("given_maps", "against", "links", "figure", "page", "cuts", "cohort_page", "slide_page", "more"),
            *("more_page", "viewer", "static", "guarded", "answers", "server", "view"),
        ),
        "export": ("slide_result", "maps", "formats", "kept", "format_folder", "export"),
        "demo": ("scene", "textures", "texture_layers", "suspects", "painting", "cohort", "demo"),
        "info": (),
        "check": ("values", "sample", "need", "slide", "cohort", "tables", "check"),
        "encoders": (),
        "cache": (),
        "dry_run": ("outcome", "cost", "dry_run"),
        "conformalize": (),
        "commands": (
            *("arguments", "slides", "models", "runs", "training", "distillation", "calibration", "benchmark"),
            *("pyramids", "checking", "exports"),
        ),
        "exits": (),
        "help": (),
        "progress": (),
        "options": (),
        "cli": (
            "lines",
            "demonstration",
            "slides",
            "models",
            "runs",
            "looking",
            "exporting",
            "assembly",
            "entry",
            "__main__",
        ),
    },
    "saccade": {
        "shadows": (),
        "moved": (),
        "__main__": (),
    },
}
FLOORS = tuple(HOUSE)


def modules() -> list[str]:
    """Every module of the house by its dotted name; a folder's own file by the folder's."""
    found = []
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(module: str) -> set[str]:
    """Every module of the house that a file imports, at whatever depth."""
    known, found = set(modules()), set()
    for node in ast.walk(ast.parse(source(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports here say where they are from"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if inside in known else str(node.module))
    return {name for name in found if name.split(".")[0] in FLOORS}


def place(module: str) -> tuple[int, int, int]:
    """Floor, room and file; what is later may import what is earlier."""
    floor, room, file = (*module.split("."), "", "")[:3]
    rooms = HOUSE[floor]
    return (
        FLOORS.index(floor),
        list(rooms).index(room) if room else len(rooms),  # a floor's own file hands out what is in its rooms
        rooms[room].index(file) if file else -1,
    )


def test_every_file_has_its_place() -> None:
    found = {name for name in modules() if name not in FLOORS}
    planned = {f"{floor}.{room}" for floor, rooms in HOUSE.items() for room in rooms}
    planned |= {f"{floor}.{room}.{f}" for floor, rooms in HOUSE.items() for room, files in rooms.items() for f in files}
    assert found == planned


@pytest.mark.parametrize("module", modules())
def test_imports_run_one_way(module: str) -> None:
    inside = f"{module}."  # a room's own file hands out what its files define
    above = [n for n in imported(module) if n != module and not n.startswith(inside) and place(n) >= place(module)]
    assert not above, f"{module} imports what stands after it: {above}"


@pytest.mark.parametrize(
    "room", [name for name in modules() if name.count(".") == 1 and source(name).parts[-1] == "__init__.py"]
)
def test_a_room_says_what_it_is_for_and_hands_out_its_names(room: str) -> None:
    """In a few lines; the names are its files' own, and none is hidden by a file of the same name."""
    package = importlib.import_module(room)
    assert 1 <= len(package.__doc__.strip().splitlines()) <= 3
    for name in package.__all__:
        defined = getattr(package, name)
        assert not isinstance(defined, ModuleType), name
        assert getattr(defined, "__module__", room).startswith(room), name


def test_the_page_of_the_house_has_every_room() -> None:
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rooms = [f"{floor}/{room}" for floor, rooms in HOUSE.items() for room in rooms if (ROOT / floor / room).is_dir()]
    assert [room for room in rooms if f"](../{room}) |" not in page] == []


def test_the_readme_s_table_and_configuration_are_enough_to_train_on(tmp_path: Path) -> None:
    """Written to files as they are, with more rows of the same form, they pass all that a training asks of them."""
    blocks = dict(re.findall(r"```(csv|yaml)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    header, *rows = blocks["csv"].splitlines()
    assert (len(rows), len(blocks["yaml"].splitlines())) == (2, 4)
    more = [row.replace(".svs,p", f"{k}.svs,p{k}") for k in range(1, 5) for row in rows]
    (tmp_path / "cohort.csv").write_text("\n".join((header, *rows, *more, "")))
    (tmp_path / "config.yaml").write_text(blocks["yaml"])
    (tmp_path / "slides").mkdir()
    for row in (*rows, *more):
        (tmp_path / row.split(",")[0]).touch()
    told = load_config(tmp_path / "config.yaml").cohort
    cohort = read_training_table(told.table, label=told.label, positive=told.positive)
    assert cohort.classes == ("normal", "tumour")
    assert not any(slide.problem for slide in cohort.slides)
    check_folds(cohort.slides, folds=None)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("[!.]*/*.md")), *sorted(ROOT.glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file and, where they name one, to a heading in it."""
    for path, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        if heading:
            text = re.sub(r"^```.*?^```", "", target.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
            told = [re.sub(r"[^\w -]", "", line).strip() for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
            assert heading in [line.lower().replace(" ", "-") for line in told], f"{path}#{heading}"


def test_help_needs_nothing_heavy() -> None:
    """What makes a command slow is what it imports: `--help` must import none of it."""
    code = """
import sys
sys.argv = ["saccade", "--help"]
import pipeline.cli
try:
    pipeline.cli.main()
except SystemExit:
    pass
heavy = ("torch", "numpy", "dask", "zarr", "pandas", "lightning", "matplotlib")
print([module for module in heavy if module in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in (
        "demo",
        "info",
        "check",
        "encoders",
        "cache",
        "train",
        "distil",
        "run",
        "view",
        "export",
        "conformalize",
        "bench",
    ):
        assert command in done.stdout
