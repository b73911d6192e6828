"""Draws by a map that was given: only where is looked changes, not what is estimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import write_onnx
from enumeration import ENUMERATE, EXACT, features_for
from makers import tissue_pixels, write_slide

from pipeline import commands
from pipeline.cohort.cohort import CohortSlide
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.model.header import model_digest
from pipeline.model.look import look
from pipeline.model.values import AttentionMap, PlacedDraw
from pipeline.run.keys import RunSettings
from pipeline.run.slide import process_slide
from pipeline.train.spec import prior_in
from stages.given_map import MapError
from stages.prior import Prior

LOGITS = [0.3, -1.0, 0.8, 0.1, -torch.inf]
PRIOR = [0.0, 0.9, 0.1, 0.0, 0.0]


@pytest.mark.parametrize("scheme", ENUMERATE)
def test_every_scheme_is_unbiased_in_value_and_gradients(scheme: str) -> None:
    """Over every draw there is, also of cells that the map leaves out."""
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    features = features_for(5).requires_grad_()
    known = torch.zeros(1, 3, dtype=torch.float64)
    own = AttentionMap(logits.log_softmax(0), known, lambda cells, found: found.unsqueeze(-2))
    drawn_by = own.drawn_by(torch.tensor(PRIOR, dtype=torch.float64), 0.4)
    q = drawn_by.log_attention.exp()
    torch.testing.assert_close(q, 0.6 * logits.softmax(0) + 0.4 * torch.tensor(PRIOR, dtype=torch.float64))
    outcomes = ENUMERATE[scheme](q.detach(), 2)
    log_q = drawn_by.log_attention.expand(len(outcomes.probability), -1)
    everywhere = torch.arange(5).expand_as(log_q)
    placed = PlacedDraw(outcomes.draw, log_q, everywhere, drawn_by, torch.zeros(len(log_q)))
    mean = outcomes.probability @ placed.logits(placed.say(features[placed.cells]))[:, 0]
    exact = logits.softmax(0) @ features
    torch.testing.assert_close(mean, exact, atol=EXACT, rtol=0)
    for d in range(3):
        ours = torch.autograd.grad(mean[d], (features, logits), retain_graph=True)
        true = torch.autograd.grad(exact[d], (features, logits), retain_graph=True)
        for one, other in zip(ours, true, strict=True):
            torch.testing.assert_close(one, other, atol=EXACT, rtol=0)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "s.tif"
    write_slide(path, tissue_pixels(1000, 1000, margin=0.1), levels=2, factor=4)
    return path


def test_a_run_looks_where_the_map_says(slide: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Half of the patches lie in the corner that a map points at; the attention that is shown stays the model's."""
    corner = np.zeros((20, 20))
    corner[3:8, 3:8] = 1
    (tmp_path / "maps").mkdir()
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "maps" / "s.npy", corner)
    model = load_model(checkpoint)
    seen = look(slide, model, prior=Prior(tmp_path / "maps" / "s.npy"))
    assert seen.prior is not None
    assert seen.prior.sum() == pytest.approx(1)
    marked = np.flatnonzero(seen.prior)
    drawn = model.sample(seen.view, generator=torch.Generator().manual_seed(0), samples=32)
    plain = model.sample(look(slide, model).view, generator=torch.Generator().manual_seed(0), samples=32)
    assert np.isin(drawn.cells, marked).sum() >= 14 > np.isin(plain.cells, marked).sum()
    torch.testing.assert_close(drawn.log_attention, plain.log_attention)

    (tmp_path / "out/slides").mkdir(parents=True)
    rows = [
        process_slide(
            CohortSlide("s", slide, patient="p"),
            tmp_path / "out",
            RunSettings(model=checkpoint, device="cpu", prior=prior and Prior(prior)),
            model_digest(checkpoint),
        )
        for prior in (tmp_path / "maps", tmp_path / "maps", None, tmp_path)
    ]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed"]
    assert [row.get("reused") for row in rows] == [False, True, False, None]
    assert "expected one map s.npy" in rows[3]["error"]
    for place in (tmp_path / "maps", tmp_path / "maps" / "s.npy"):  # of a folder or by itself
        assert rows[0] | commands.predict(slide, checkpoint, prior=place).columns() == rows[0]


def test_a_network_makes_the_map(slide: Path, checkpoint: Path, tmp_path: Path) -> None:
    """In a run and by itself alike; with another channel it is another result; a misfit starts nothing."""
    path = write_onnx(tmp_path / "net.onnx", ("n", 3, "h", "w"), pool=None)
    (tmp_path / "net.onnx.json").write_text('{"mean": [1, 1, 1], "std": [-1, -1, -1]}')  # darkness
    (tmp_path / "out").mkdir()
    model, digest = load_model(checkpoint), model_digest(checkpoint)
    seen, plain = look(slide, model, prior=Prior(path, 4.0, 0)), look(slide, model)
    assert seen.prior is not None
    assert seen.prior.sum() == pytest.approx(1)
    assert seen.cost.bytes > plain.cost.bytes, "what the network was shown is read, too"
    own = look(slide, model, prior=Prior(path, None, 0)).cost
    assert own.bytes == plain.cost.bytes, "the attention's thumbnail is read once"
    (tmp_path / "out/slides").mkdir(parents=True)
    rows = [
        process_slide(
            CohortSlide("s", slide, patient="p"),
            tmp_path / "out",
            RunSettings(model=checkpoint, device="cpu", prior=Prior(path, channel=channel)),
            digest,
        )
        for channel in (0, 0, 1)
    ]
    assert [row.get("reused") for row in rows] == [False, True, False]
    assert rows[0] | commands.predict(slide, checkpoint, prior=path, prior_channel=0).columns() == rows[0]
    for wrong, said in (
        ({"prior": path}, r"--prior: net\.onnx puts out 3 channels: say which"),
        ({"prior": tmp_path / "none.onnx"}, "--prior: no network"),
        ({"prior_channel": 1}, "prior_channel is for an .onnx network as prior, and no prior is given"),
        ({"prior": path, "prior_mpp": 0.0}, "prior_mpp must be more than 0, found 0"),
        ({"prior": path, "prior_channel": -1}, "prior_channel must be 0 or more, found -1"),
    ):
        with pytest.raises(UsageError, match=said):
            commands.predict(slide, checkpoint, **wrong)


def test_training_takes_a_folder_of_maps_or_a_network(tmp_path: Path) -> None:
    """Of a model that draws cells; their place is by the configuration's."""
    (tmp_path / "config.yaml").write_text("cohort: {table: t.csv}\nattention: {prior: maps}\n")
    with pytest.raises(UsageError, match=r"attention\.prior: no folder or \.onnx network .*maps; correct the path"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "maps").mkdir()
    assert load_config(tmp_path / "config.yaml").attention.prior == tmp_path / "maps"
    with pytest.raises(UsageError, match=r"attention\.prior says which cells to draw: .* use model\.kind: sampled"):
        load_config(tmp_path / "config.yaml", ["model.kind=exhaustive"])
    with pytest.raises(UsageError, match=r"attention\.prior_mpp is for an \.onnx network as attention\.prior"):
        load_config(tmp_path / "config.yaml", ["attention.prior_mpp=4"])
    told = [f"attention.prior={tmp_path / 'net.onnx'}", "attention.prior_mpp=4", "attention.prior_channel=1"]
    assert prior_in(load_config(tmp_path / "config.yaml", told)) == Prior(tmp_path / "net.onnx", 4.0, 1)


def test_a_map_of_nothing_on_the_tissue_is_refused(slide: Path, checkpoint: Path, tmp_path: Path) -> None:
    corner = np.zeros((100, 100))
    corner[0, 0] = 1
    np.save(tmp_path / "s.npy", corner)
    with pytest.raises(MapError, match="0 on all of the slide's tissue"):
        look(slide, load_model(checkpoint), prior=Prior(tmp_path / "s.npy"))
