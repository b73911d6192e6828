"""Members that were fitted to parts of the patients, judged by the others."""

from __future__ import annotations

import torch
from torch.nn import functional

from pipeline.train.bagging import draw_bags, judging_shares

N, MEMBERS = 44, 16


def test_members_that_guess_are_found_to_guess() -> None:
    """Out of bag, over sixty cohorts, within four standard errors of .5; two slides a patient."""
    labels = torch.arange(N) // 2 % 2
    patients = [f"p{i // 2}" for i in range(N)]
    found = []
    for seed in range(60):
        unseen = draw_bags(patients, labels.tolist(), MEMBERS, seed=seed) == 0
        logits = torch.randn(N, MEMBERS, 2, generator=torch.Generator().manual_seed(seed))
        wanted = labels[:, None].expand(-1, MEMBERS)
        loss = functional.cross_entropy(logits.movedim(1, 2), wanted, reduction="none")
        weights = judging_shares(loss, unseen, patients)
        assert not bool((weights[~unseen] > 0).any())
        told = ((weights[..., None] * logits).sum(1) / weights.sum(1)[:, None]).softmax(1)[:, 1]
        found.append(float((told[labels == 1][:, None] > told[labels == 0]).float().mean()))
    aurocs = torch.tensor(found)
    assert abs(float(aurocs.mean()) - 0.5) < 4 * float(aurocs.std()) / 60**0.5
