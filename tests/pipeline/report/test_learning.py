"""A report shows how its model learned, from what the training wrote beside it; or says that nothing is there."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from pipeline.report.learning import learning_of, learning_section

ROWS = (
    "epoch,loss,error,val_loss,val_auroc,out_of_bag_loss\n1,0.7,0.01,0.6,0.5,\n2,0.35,0.01,,0.75,\n3,0.0,0.01,0.3,1,\n"
)


def trained(folder: Path, curve: str = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "curve.csv").write_text(curve)
    (folder / "training.json").write_text(json.dumps({"kept_epoch": 2, "losses": {"base": 0.7}}))
    return folder / "model.safetensors"


def lines(section: str) -> dict[str, list[tuple[float, float]]]:
    """Points of each line, by its class."""
    found = re.findall('<polyline class="(line c[0-9]|guide)" points="(.*?)"/>', section)
    return {
        f"{kind} {i}": [tuple(map(float, p.split(","))) for p in points.split()]
        for i, (kind, points) in enumerate(found)
    }  # type: ignore[misc]


def test_losses_and_auroc_are_drawn_to_scale_and_missing_epochs_left_out(tmp_path: Path) -> None:
    section = learning_of(trained(tmp_path / "model"))
    ET.fromstring(f"<div>{section}</div>")
    assert re.findall("<h4>(.*?)</h4>", section) == ["Loss", "Validation AUROC"]
    assert re.findall('class="c[0-9]">(.*?)<', section) == ["training", "validation"]
    base, kept, training, validation, _, auroc = lines(section).values()
    assert training == [(48, 8), (139, 107), (230, 206)]
    assert [x for x, _ in validation] == [48, 230]
    assert {y for _, y in base} == {8}
    assert {x for x, _ in kept} == {139}
    assert [y for _, y in auroc] == [107, 57.5, 8]


def test_where_there_is_no_curve_it_says_so(tmp_path: Path) -> None:
    for text in ("", "epoch,loss\n", "not a table", "epoch,loss\n1,nan\n"):
        section = learning_of(trained(tmp_path / "model", text))
        assert "no curve.csv" in section
        assert "<svg" not in section
    assert "no curve.csv" in learning_of(tmp_path / "elsewhere" / "model.safetensors")
    assert learning_section(tmp_path / "elsewhere") == ""


def test_each_model_of_an_ensemble_has_its_plots(tmp_path: Path) -> None:
    for name in ("fold-0", "fold-1"):
        trained(tmp_path / name)
    members = [{"model": f"{name}/model.safetensors", "digest": "x"} for name in ("fold-0", "fold-1")]
    told = {"format": "saccade-ensemble-1", "members": members, "quality": None}
    (tmp_path / "ensemble.json").write_text(json.dumps(told))
    section = learning_of(tmp_path / "ensemble.json")
    titles = re.findall("<h4>(.*?)</h4>", section)
    assert titles == [f"{what}: {fold}" for fold in ("fold-0", "fold-1") for what in ("Loss", "Validation AUROC")]
