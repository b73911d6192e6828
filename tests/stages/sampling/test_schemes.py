"""The one table of schemes: what users may choose, and that one entry makes a scheme."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipeline.config import load_config, override_config
from pipeline.errors import UsageError
from stages.sampling.draw import draw, draw_judged
from stages.sampling.schemes import DEFAULT, SCHEMES, Scheme, choices, in_words, listed

LOG_A = torch.tensor([[0.3, -1.0, 0.8, 0.1, -0.5, 0.0]], dtype=torch.float64).log_softmax(1)


@pytest.fixture
def mirrored(monkeypatch: pytest.MonkeyPatch) -> Scheme:
    """Systematic along the walk backwards, as a scheme of its own."""
    plain = SCHEMES[DEFAULT]
    assert plain.judged is not None
    judged = plain.judged
    scheme = Scheme(
        "the walk backwards",
        lambda q, n, order, generator: plain.draw(q, n, order.flip(0), generator),
        lambda q, n, order, generator: judged(q, n, order.flip(0), generator),
        most_judged=4,
    )
    monkeypatch.setitem(SCHEMES, "mirrored", scheme)
    return scheme


@pytest.mark.usefixtures("mirrored")
@pytest.mark.parametrize("take", [draw, draw_judged])
def test_a_new_entry_is_drawn(take: type(draw)) -> None:
    """By name, and as its functions say."""
    walk = torch.tensor([3, 1, 5, 0, 2, 4])
    found = take(LOG_A, 3, scheme="mirrored", generator=torch.Generator().manual_seed(3), order=walk)
    expected = take(LOG_A, 3, generator=torch.Generator().manual_seed(3), order=walk.flip(0))
    assert torch.equal(found.cells, expected.cells)
    assert torch.equal(found.weights, expected.weights)
    assert (found.contrasts is None) == (take is draw)


@pytest.mark.usefixtures("mirrored")
def test_a_new_entrys_limit_is_kept() -> None:
    with pytest.raises(ValueError, match="of mirrored is told for at most 4 draws, got 5"):
        draw_judged(LOG_A, 5, scheme="mirrored", generator=torch.Generator())


@pytest.mark.usefixtures("mirrored")
def test_a_new_entry_may_be_configured(tmp_path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("cohort: {table: t.csv}\nsampling: {scheme: mirrored, samples: 4}")
    config = load_config(path)
    assert config.sampling.scheme == "mirrored"
    with pytest.raises(UsageError, match=r"samples must be at most 4 with mirrored, .*found 5"):
        override_config(config, ["sampling.samples=5"])
    with pytest.raises(UsageError, match=r"'systematic', 'gumbel', 'iid' or 'mirrored', found the text 'topk'"):
        override_config(config, ["sampling.scheme=topk"])


def test_a_new_entry_is_a_choice_of_the_command_and_told_in_its_help() -> None:
    code = """
import sys
from dataclasses import replace
from stages.sampling.schemes import SCHEMES
SCHEMES["mirrored"] = replace(SCHEMES["gumbel"], about="the walk backwards", most_judged=7)
sys.argv = ["saccade", *sys.argv[1:]]
from pipeline.cli import main
main()
"""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, "run", *arguments], capture_output=True, text=True)

    told = " ".join(command("--help").stdout.split())
    assert "systematic|gumbel|iid|mirrored" in told
    assert "mirrored: the walk backwards, at most 7" in told
    refused = command("s.tif", "--out", "o", "--model", "m", "--scheme", "topk")
    assert refused.returncode == 2
    assert "'topk' is not one of 'systematic', 'gumbel', 'iid', 'mirrored'" in " ".join(refused.stderr.split())


def test_what_is_biased_is_no_choice() -> None:
    assert set(SCHEMES) - set(choices()) == {"topk"}
    assert listed() == "systematic, gumbel or iid"


def test_users_are_told_that_training_and_predictions_draw_differently() -> None:
    assert "training draws it by equal steps, predictions by pairs (Murthy's design)" in in_words()


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, stages.sampling.schemes; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
