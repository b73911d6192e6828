"""What work costs, where the machine tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.bench.meter import Meter, packages


def zone(folder: Path, name: str, used: object, most: int = 1000) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{used}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")


def test_energy_is_that_of_the_packages_also_where_a_counter_begins_again(tmp_path: Path) -> None:
    for name, used in (("intel-rapl:0", 10), ("intel-rapl:1", 990), ("intel-rapl:0:0", 5)):
        zone(tmp_path, name, used)
    meter = Meter(torch.device("cpu"), powercap=tmp_path)
    for name, used in (("intel-rapl:0", 40), ("intel-rapl:1", 20), ("intel-rapl:0:0", 500)):
        zone(tmp_path, name, used)
    spent = meter.read()
    assert spent.wh == pytest.approx((30 + 30) / 1e6 / 3600)
    assert spent.each(3).wh == pytest.approx(20 / 1e6 / 3600)


def test_where_the_machine_tells_no_energy_none_is_told(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "not a number")
    assert packages(tmp_path) == packages(tmp_path / "missing") == {}
    assert Meter(torch.device("cpu"), powercap=tmp_path).read().wh is None
