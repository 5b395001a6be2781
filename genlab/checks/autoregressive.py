"""Causal models by brute force: no leak, a sampler that draws from the predictions, completion.

Dimensions: B batch, n images, S symbols per site, h rows and w columns of sites, K values of a symbol,
P = h w S symbols of an image in the model's order.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.checks.likelihood import described, in_order
from genlab.checks.subject import Finding, Subject, held_if, make_batch, require
from genlab.errors import ConfigurationError
from genlab.models.capabilities import Completes, IsCausal, SamplesIncrementally
from genlab.models.pixelcnn.sampler import invert_cdf
from genlab.types import UNLABELLED, Batch, ImageSpec

C = TypeVar("C")

_ROWS_PER_PASS = 512
_SAME_LOGITS = 1e-3
_MOVED = 1e-5
"""Threshold in nats, above the rounding error."""


@torch.no_grad()
def influence(model: IsCausal, batch: Batch) -> Float[Tensor, "P P"]:
    """Return the changes of log-probabilities: row p for a change of symbol p, column q for the prediction of q.

    Args:
        model: In evaluation mode.
        batch: One image.
    """
    symbols = model.to_symbols(batch.images)
    _, num_symbols, height, width = symbols.shape
    count = num_symbols * height * width
    touched = in_order(symbols).repeat(count, 1)  # (P, P)
    touched.diagonal().add_(1).remainder_(model.num_values)
    touched = touched.view(count, height, width, num_symbols).permute(0, 3, 1, 2)
    rows = []
    for part in torch.split(touched, _ROWS_PER_PASS):
        labels = batch.labels.expand(len(part))
        # Two passes of one shape: the same sums in the same order, so that what does not depend differs by nothing.
        before, after = (model.logits(x, labels).log_softmax(2) for x in (symbols.expand_as(part), part))
        rows.append(in_order((after - before).abs().amax(2)))
    return torch.cat(rows)


@torch.no_grad()
def decode(
    model: SamplesIncrementally, symbols: Int[Tensor, "B S h w"], labels: Int[Tensor, " B"], dtype: torch.dtype
) -> Float[Tensor, "B S K h w"]:
    """Return the logits of known images, from the decoder."""
    decoder = model.decoder(labels, dtype=dtype)
    batch, channels, height, width = symbols.shape
    logits = torch.empty(
        batch, channels, model.num_values, height, width, dtype=torch.promote_types(dtype, torch.float32)
    )
    for row in range(height):
        decoder.begin_row(row)
        for column in range(width):
            for channel in range(channels):
                decoder.advance(column, channel)
                logits[:, channel, :, row, column] = decoder.logits(column, channel)
                decoder.write(column, channel, symbols[:, channel, row, column])
    return logits


@torch.no_grad()
def draw_with_full_passes(
    model: SamplesIncrementally, uniforms: Float[Tensor, "n S h w"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "n C H W"]:
    """Draw images by one full pass of the network per symbol."""
    symbols = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
    _, channels, height, width = uniforms.shape
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                logits = model.logits(symbols, labels)[:, channel, :, row, column]
                symbols[:, channel, row, column] = invert_cdf(logits, uniforms[:, channel, row, column])
    return model.to_images(symbols)


def no_leak(subject: Subject) -> Finding:
    """Check that no prediction depends on its own or a later symbol, nor on later colours of its pixel."""
    findings = []
    for model, spec in _models(subject, IsCausal):
        moved = influence(model, make_batch(spec, 1))
        leaks = moved.tril()  # of symbol p on the predictions up to p
        largest = float(leaks.max())
        symbol, prediction = divmod(int(leaks.argmax()), len(leaks))
        num_earlier = len(moved) * (len(moved) - 1) // 2
        used = float((moved.triu(1) > _MOVED).sum()) / max(num_earlier, 1)
        num_pairs = moved.numel() - num_earlier
        seen = f"{described(spec)}: leak {largest:.1e} in {num_pairs} pairs, {used:.0%} of earlier symbols matter"
        if not largest <= _MOVED:  # NaN too
            seen = f"{described(spec)}: symbol {symbol} moves prediction {prediction} by {largest:.2g} nats"
            return held_if(False, seen)
        findings.append(seen)
    return held_if(True, "; ".join(findings))


def incremental_equals_full(subject: Subject) -> Finding:
    """Check that the sampler's logits equal those of the network, and that equal uniforms give equal images."""
    findings = []
    for model, spec in _models(subject, SamplesIncrementally):
        batch = make_batch(spec, 2)
        symbols = model.to_symbols(batch.images)
        with torch.no_grad():
            full = model.logits(symbols, batch.labels).log_softmax(2)
        error = float((decode(model, symbols, batch.labels, torch.float32).log_softmax(2) - full).abs().max())
        labels = _labels(model, 2)
        drawn = model.sample(
            2, labels=labels if model.num_classes else None, generator=torch.Generator().manual_seed(3)
        )
        uniforms = model.uniforms(2, generator=torch.Generator().manual_seed(3))
        num_other = int((drawn != draw_with_full_passes(model, uniforms, labels)).sum())
        seen = f"{described(spec)}: largest difference {error:.1e} nats, {num_other} of {drawn.numel()} values differ"
        if not error < _SAME_LOGITS or num_other:
            return held_if(False, seen)
        findings.append(seen)
    return held_if(True, "; ".join(findings))


def completion_keeps_what_is_given(subject: Subject) -> Finding:
    """Check that given pixels are kept, hidden ones are not used, and that without given pixels a sample is drawn."""
    model, _ = next(_models(subject, Completes))
    images = make_batch(subject.spec, 3).images
    rows = subject.spec.height // 2
    hidden = images.clone()
    hidden[:, :, rows:] = 1 - hidden[:, :, rows:]
    labels = _labels(model, 3) if model.num_classes else None

    def complete(shown: Tensor, given: int) -> Tensor:
        return model.complete(shown, given, labels=labels, generator=torch.Generator().manual_seed(1))

    one, other = complete(images, rows), complete(hidden, rows)
    free = model.sample(3, labels=labels, generator=torch.Generator().manual_seed(1))
    checked: dict[str, Callable[[], bool]] = {
        "given pixels were changed": lambda: torch.equal(one[:, :, :rows], images[:, :, :rows]),
        "hidden pixels were used": lambda: torch.equal(one, other),
        "an image given whole was changed": lambda: torch.equal(complete(images, subject.spec.height), images),
        "without given rows it is not a sample": lambda: torch.equal(complete(images, 0), free),
    }
    for complaint, holds in checked.items():
        if not holds():
            return held_if(False, complaint)
    return held_if(True, f"{rows} of {subject.spec.height} rows given and kept, the hidden rest not used")


def _models(subject: Subject, capability: type[C]) -> Iterator[tuple[C, ImageSpec]]:
    """Yield the model for its images and for coloured ones, if it takes them, with every parameter moved.

    Raises:
        DoesNotApply: It has not the capability.
    """
    specs = [subject.spec]
    if subject.spec.channels == 1:
        specs.append(replace(subject.spec, channels=3))
    for spec in specs:
        try:
            model = subject.fresh(spec, randomized=True).eval()
        except ConfigurationError:
            if spec == subject.spec:
                raise
            continue  # a model of grey images alone
        yield require(model, capability), spec


def _labels(model: SamplesIncrementally | Completes, size: int) -> Tensor:
    return torch.arange(size) % model.num_classes if model.num_classes else torch.full((size,), UNLABELLED)
