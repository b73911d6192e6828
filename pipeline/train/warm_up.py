"""What attention learns before training: to look where nuclei are, which needs no labels and no patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.reading import image, read_together
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from pipeline.train.slides import TrainingSlides
from stages.attention import GrainAttention, HematoxylinAttention

WARM_UP_REGIONS = 8
"""Regions of a slide that a pass of the second look's warm-up reads."""
WARM_UP_TEMPERATURE = 0.007
"""Hematoxylin density that multiplies attention by e: sharp enough that the warm attention prefers dense nuclei."""


def warm_up(
    model: AttentionSampler,
    slides: TrainingSlides,
    *,
    passes: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Fit a learned attention to a map that needs no training first: no labels, no patches.

    From uniform attention a small lesion is a few per cent of every gradient; nuclei are a better first guess of where
    to look. On the thumbnail that is where hematoxylin is dense, and in a second look where it is grainy. Loss:
    ``KL(given attention || learned attention)``.
    """
    generator = torch.Generator().manual_seed(seed)
    if passes and model.spec.attention == "learned":
        given = HematoxylinAttention(cell_px=model.attention.cell_px, temperature=WARM_UP_TEMPERATURE)

        def whole(one: View) -> Tensor:
            log_attention = model.attend(one).log_attention
            logits = one.stack.joined([given(image(slide.rgb, model.device)) for slide in one.each])
            return _divergence(logits.flatten().to(log_attention), log_attention, log_attention > -torch.inf)

        nats = _fit_attention(model.attention, whole, slides, passes, generator)
        say(f"warmed up: attention within {nats:.2f} nats of the hematoxylin map")
    inner = model.inner
    if passes and inner is not None:
        grain = GrainAttention(cell_px=model.spec.inner_cell_px)

        def inside(one: View) -> Tensor:
            tissue = model.tissue_by_region(one)
            regions = tissue.any(1).nonzero().flatten()
            some = regions[torch.randperm(len(regions), generator=generator)[:WARM_UP_REGIONS]]
            (pixels,) = read_together([(one.regions, some)], model.device)
            images = image(pixels, model.device)
            # the region without what is around it; its grain is a variance, told in float64
            cells = functional.pad(images, 4 * [-inner.around]).to(model.drawing_device)
            parts = zip(cells, inner(images).flatten(1).to(cells), tissue[some], strict=True)
            return torch.stack(
                [_divergence(grain(region).flatten(), ours, mask) for region, ours, mask in parts]
            ).mean()

        nats = _fit_attention(inner, inside, slides, passes, generator)
        say(f"warmed up: second look within {nats:.2f} nats of the hematoxylin's grain")


def _fit_attention(
    net: nn.Module,
    loss_of: Callable[[View], Tensor],
    slides: TrainingSlides,
    passes: int,
    generator: torch.Generator,
) -> float:
    """Fit one attention net, a step a slide; the mean loss of the last pass."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(passes):
        losses.clear()
        for index in torch.randperm(slides.count, generator=generator).tolist():
            found = slides.attempt([index], lambda kept, views: loss_of(views[0]))
            if found is not None:
                _, loss = found
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    return sum(losses) / max(1, len(losses))


def _divergence(given: Tensor, learned: Tensor, cells: Tensor) -> Tensor:
    """KL divergence in nats between the attention of two sets of logits over the marked ones of K cells."""
    wanted, ours = (values[cells].log_softmax(0) for values in (given, learned))
    return functional.kl_div(ours, wanted, reduction="sum", log_target=True)
