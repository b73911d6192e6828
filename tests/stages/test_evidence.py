"""Heads that look for evidence: each sum is the one that its docstring writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from stages.evidence import CANDIDATES, START, EvidenceHeads

MEMBERS, CLASSES, SCALES, CELLS, R = 5, 3, 2, 11, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def each(contexts: Sequence[Tensor]) -> tuple[Callable[[int], Tensor], list[int]]:
    """Slides by their place, and their cells."""
    return contexts.__getitem__, [one.shape[1] for one in contexts]


@pytest.fixture
def context() -> Tensor:
    return torch.randn(SCALES, CELLS, R, generator=generator(1))


@pytest.fixture
def heads() -> EvidenceHeads:
    made = EvidenceHeads(members=MEMBERS, classes=CLASSES, components=R, fine=2, scales=SCALES)
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(i + 2)))
    return made


def test_what_is_known_is_the_smooth_maximum_of_the_scores(heads: EvidenceHeads, context: Tensor) -> None:
    """By hand: member k sees scale k mod 2; attention sums to 1 over the cells for each member and class."""
    scores = heads.scores(context)
    log_a = heads.log_attention(scores)
    torch.testing.assert_close(log_a.exp().sum(2), torch.ones(MEMBERS, CLASSES))
    known = heads.known(scores, log_a.exp())
    for k in range(MEMBERS):
        for c in range(CLASSES):
            s = context[k % SCALES] @ heads.weight[k, c]
            a = (heads.log_sharpness[k].exp() * s).softmax(0)
            expected = heads.log_gain[k].exp() * (a * s).sum() + heads.bias[k, c]
            torch.testing.assert_close(known[k, c], expected, rtol=1e-4, atol=1e-5)


def test_what_is_dropped_has_no_say(heads: EvidenceHeads, context: Tensor) -> None:
    """A member without its first direction scores as one whose weight for it is 0, the others as ever."""
    keep = torch.ones(MEMBERS, 1, R)
    keep[2, 0, 0] = 0
    dropped, whole = heads.scores(context, keep), heads.scores(context)
    others = [k for k in range(MEMBERS) if k != 2]
    assert torch.equal(dropped[others], whole[others])
    with torch.no_grad():
        heads.weight[2, :, 0] = 0
    torch.testing.assert_close(dropped[2], heads.scores(context)[2])


def test_members_share_a_pass_and_nothing_else(heads: EvidenceHeads, context: Tensor) -> None:
    """The logits of one depend on no other's weights."""
    scores = heads.scores(context)
    heads.known(scores, heads.log_attention(scores).exp())[3].sum().backward()
    for name in ("weight", "log_gain", "log_sharpness", "bias"):
        reached = (
            getattr(heads, name).grad.flatten(1).any(1) if name in ("weight", "bias") else getattr(heads, name).grad
        )
        assert reached.nonzero().flatten().tolist() == [3], name


def test_the_gradient_reaches_every_direction(heads: EvidenceHeads, context: Tensor) -> None:
    scores = heads.scores(context)
    heads.known(scores, heads.log_attention(scores).exp())[:, 0].sum().backward()
    for parameter in (heads.weight, heads.log_gain, heads.log_sharpness, heads.bias):
        reached = parameter.grad[:, 0] if parameter.ndim > 1 else parameter.grad
        assert bool((reached != 0).all())


def one_hot(labels: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), 2).float()


def test_a_start_puts_its_score_on_a_cell_that_stands_out() -> None:
    """Of a slide of that class; START is the score of just that cell, with the context of the member's own scale."""
    contexts = [torch.randn(SCALES, 40, R, generator=generator(10 + i)) for i in range(6)]
    labels = [0, 0, 1, 1, 0, 1]
    heads = EvidenceHeads(members=MEMBERS, classes=2, components=R, fine=2, scales=SCALES)
    heads.start(*each(contexts), one_hot(labels), torch.ones(6, MEMBERS), generator=generator())
    for k in range(MEMBERS):
        for c in range(2):
            found = set()
            for i, one in enumerate(contexts):
                here = one[k % SCALES]
                scores = here @ heads.weight[k, c]
                on = scores.sub(START).abs().lt(1e-4)
                outstanding = here.square().sum(1).topk(CANDIDATES).indices.tolist()
                found |= {(i, cell) for cell in on.nonzero().flatten().tolist() if cell in outstanding}
            assert len(found) == 1
            assert labels[next(iter(found))[0]] == c


def test_a_start_is_the_generators() -> None:
    contexts = [torch.randn(SCALES, 40, R, generator=generator(i)) for i in range(3)]
    weights = []
    for seed in (0, 0, 1):
        heads = EvidenceHeads(members=MEMBERS, classes=2, components=R, fine=2, scales=SCALES)
        heads.start(
            contexts.__getitem__,
            [c.shape[1] for c in contexts],
            one_hot([0, 1, 0]),
            torch.ones(3, MEMBERS),
            generator=generator(seed),
        )
        weights.append(heads.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_class_without_slides_starts_from_nothing_and_blank_cells_divide_by_nothing() -> None:
    heads = EvidenceHeads(members=2, classes=2, components=R, fine=2, scales=1)
    heads.start(lambda i: torch.zeros(1, 3, R), [3], one_hot([0]), torch.ones(1, 2), generator=generator())
    assert bool(torch.isfinite(heads.weight).all())
    assert not heads.weight.any()


def test_a_start_tells_slides_apart_and_never_looks_at_slides_out_of_the_bag() -> None:
    """Lesions lie along one direction, in slides of class 1; a slide that no member sees is one great outlier."""
    lesion = torch.nn.functional.one_hot(torch.tensor(0), R) * 6.0
    contexts = [0.5 * torch.randn(1, 200, R, generator=generator(i)) for i in range(9)]
    labels = [i % 2 for i in range(8)] + [1]
    for i, label in enumerate(labels):
        if label:
            contexts[i][0, :5] += lesion
    contexts[8][0, 10:30, 1] = 50.0
    bags = torch.ones(9, 8)
    bags[8] = 0
    heads = EvidenceHeads(members=8, classes=2, components=R, fine=2, scales=1)
    heads.start(*each(contexts), one_hot(labels), bags, generator=generator())
    weight = heads.weight.detach()[:, 1]
    directions = weight / weight.norm(dim=1, keepdim=True)
    assert float(directions[:, 0].median()) > 0.9
    assert float(directions[:, 0].min()) > 0.4  # enough to tell these slides apart


def test_a_slide_is_asked_for_twice_at_most_and_passed_over_once_it_is_gone() -> None:
    """What all of a cohort look like together would be gigabytes."""
    contexts = [torch.randn(SCALES, CELLS, R, generator=generator(i)) for i in range(4)]
    asked: list[int] = []

    def context(i: int) -> Tensor | None:
        asked.append(i)
        return None if i == 3 else contexts[i]

    heads = EvidenceHeads(members=MEMBERS, classes=2, components=R, fine=2, scales=SCALES)
    heads.start(context, 4 * [CELLS], one_hot([0, 1, 0, 1]), torch.ones(4, MEMBERS), generator=generator())
    assert max(asked.count(i) for i in range(4)) == 2
    assert asked[-4:] == [0, 1, 2, 3]
    assert bool((heads.weight[:, 0] != 0).any(-1).all())
