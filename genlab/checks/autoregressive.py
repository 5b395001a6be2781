"""Exact likelihoods by brute force: no leak, probabilities that sum to one, a sampler that draws from them.

Dimensions: B batch, n images, S symbols per site, h rows and w columns of sites, K values of a symbol,
P = h w S symbols of an image in the model's order.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genlab.checks.subject import DoesNotApply, Finding, Subject, held_if, make_batch
from genlab.errors import ConfigurationError
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.sampler import invert_cdf
from genlab.types import UNLABELLED, Batch, ImageSpec

_NOT_AUTOREGRESSIVE = "it has no logits of symbols in an order"
_MOST_IMAGES = 4096
_ROWS_PER_PASS = 512
_SMALLEST = ((2, 4), (4, 4))
_SAME_LOGITS = 1e-3
_SAME_TOTAL = 5e-4
_MOVED = 1e-5
"""Nats; below it stands rounding."""


def in_order(values: Tensor) -> Tensor:
    """(B, S, h, w) as (B, P): rows from the top, sites from the left, symbols within a site."""
    return values.permute(0, 2, 3, 1).flatten(1)


@torch.no_grad()
def influence(model: AutoregressiveModel, batch: Batch) -> Float[Tensor, "P P"]:
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
def log_total_probability(model: AutoregressiveModel) -> tuple[float, int]:
    """Return the log of the total probability of all images with a given beginning, relative to the beginning.

    The beginning is empty where at most 4,096 images are possible; otherwise it leaves as many symbols as that number
    allows.

    Returns:
        The logarithm, 0 for a distribution, and the number of images summed over.
    """
    height, width = model.grid
    count = model.num_symbols * height * width
    free = 1
    while free < count and model.num_values ** (free + 1) <= _MOST_IMAGES:
        free += 1
    endings = torch.cartesian_prod(*[torch.arange(model.num_values)] * free).view(-1, free)
    beginning = torch.randint(model.num_values, (1, count - free)).expand(len(endings), -1)
    ordered = torch.cat((beginning, endings), 1)  # (n, P)
    symbols = ordered.view(-1, height, width, model.num_symbols).permute(0, 3, 1, 2).contiguous()
    labels = _labels(model, len(symbols))
    nats = torch.cat([model.nll(part, labels[: len(part)]) for part in torch.split(symbols, _ROWS_PER_PASS)])
    logits = model.logits(symbols[:1], labels[:1]).transpose(1, 2)  # (1, K, S, h, w)
    of_beginning = -in_order(F.cross_entropy(logits, symbols[:1], reduction="none"))[0, : count - free].sum()
    return float(torch.logsumexp(-nats.double(), 0) - of_beginning.double()), len(endings)


@torch.no_grad()
def decode(
    model: AutoregressiveModel, symbols: Int[Tensor, "B S h w"], labels: Int[Tensor, " B"], dtype: torch.dtype
) -> Float[Tensor, "B S K h w"]:
    """Return the logits of known images, from the decoder."""
    decoder = model.decoder(labels, dtype=dtype)
    batch, channels, height, width = symbols.shape
    logits = torch.empty(batch, channels, model.num_values, height, width)
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
    model: AutoregressiveModel, uniforms: Float[Tensor, "n S h w"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "n C H W"]:
    """Draw images the slow way: one full pass of the network per symbol."""
    symbols = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
    _, channels, height, width = uniforms.shape
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                logits = model.logits(symbols, labels)[:, channel, :, row, column]
                symbols[:, channel, row, column] = invert_cdf(logits, uniforms[:, channel, row, column])
    return model.to_images(symbols)


def no_leak(subject: Subject) -> Finding:
    """No prediction moves with the symbol that it predicts or a later one, among colours of a pixel neither."""
    findings = []
    for model in _models(subject, _grey_and_colour(subject)):
        spec = model.spec
        moved = influence(model, make_batch(spec, 1))
        leaks = moved.tril()  # of symbol p on the predictions up to p
        largest = float(leaks.max())
        symbol, prediction = divmod(int(leaks.argmax()), len(leaks))
        num_earlier = len(moved) * (len(moved) - 1) // 2
        used = float((moved.triu(1) > _MOVED).sum()) / max(num_earlier, 1)
        num_pairs = moved.numel() - num_earlier
        seen = (
            f"{_named(spec)}: largest leak {largest:.1e} in {num_pairs} pairs, {used:.0%} of the earlier symbols matter"
        )
        if largest > _MOVED:
            seen = f"{_named(spec)}: symbol {symbol} moves the prediction of symbol {prediction} by {largest:.2g} nats"
            return held_if(False, seen)
        findings.append(seen)
    return held_if(True, "; ".join(findings))


def probabilities_sum_to_one(subject: Subject) -> Finding:
    """All images that are possible, or all that share a beginning."""
    sizes = (*_SMALLEST, (subject.spec.height, subject.spec.width))
    model = next(_models(subject, [replace(subject.spec, height=height, width=width) for height, width in sizes]))
    total, count = log_total_probability(model)
    spec = model.spec
    return held_if(
        abs(total) < _SAME_TOTAL,
        f"log of the sum {total:+.1e} over {count} images of {spec.height}x{spec.width} {_named(spec)}",
    )


def incremental_equals_full(subject: Subject) -> Finding:
    """The sampler's logits are those of the network, and the same uniforms give the same image."""
    findings = []
    for model in _models(subject, _grey_and_colour(subject)):
        spec = model.spec
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
        seen = (
            f"{_named(spec)}: largest difference {error:.1e} nats, {num_other} of {drawn.numel()} drawn values differ"
        )
        if not error < _SAME_LOGITS or num_other:
            return held_if(False, seen)
        findings.append(seen)
    return held_if(True, "; ".join(findings))


def completion_keeps_what_is_given(subject: Subject) -> Finding:
    """Given pixels stay, hidden ones are not looked at, and nothing given is a sample."""
    model = next(_models(subject, [subject.spec]))
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
        "hidden pixels were looked at": lambda: torch.equal(one, other),
        "an image given whole was changed": lambda: torch.equal(complete(images, subject.spec.height), images),
        "with nothing given it is no sample": lambda: torch.equal(complete(images, 0), free),
    }
    for complaint, holds in checked.items():
        if not holds():
            return held_if(False, complaint)
    return held_if(True, f"{rows} of {subject.spec.height} rows given and kept, the rest drawn without a look at it")


def every_image(spec: ImageSpec) -> Batch:
    """Return all images of a small space, unlabelled, in the order of their levels."""
    size = spec.channels * spec.height * spec.width
    levels = torch.tensor(list(itertools.product(range(spec.num_levels), repeat=size)))
    images = levels.view(-1, spec.channels, spec.height, spec.width) / (spec.num_levels - 1)
    return Batch(images=images.float(), labels=torch.full((len(images),), UNLABELLED))


def _models(subject: Subject, specs: Iterable[ImageSpec]) -> Iterator[AutoregressiveModel]:
    """Yield the model for those of the images that it takes, every parameter moved, in evaluation mode.

    Raises:
        DoesNotApply: It is another kind of model, or refuses all of them.
    """
    is_made = False
    for spec in specs:
        try:
            model = subject.fresh_of(
                AutoregressiveModel,  # type: ignore[type-abstract]
                _NOT_AUTOREGRESSIVE,
                spec=spec,
                randomized=True,
            )
        except ConfigurationError:
            continue
        is_made = True
        yield model.eval()
    if not is_made:
        raise DoesNotApply(_NOT_AUTOREGRESSIVE)


def _grey_and_colour(subject: Subject) -> list[ImageSpec]:
    specs = [subject.spec]
    if subject.spec.channels == 1:
        specs.append(replace(subject.spec, channels=3))
    return specs


def _named(spec: ImageSpec) -> str:
    return "one channel" if spec.channels == 1 else f"{spec.channels} channels"


def _labels(model: AutoregressiveModel, size: int) -> Tensor:
    return torch.arange(size) % model.num_classes if model.num_classes else torch.full((size,), UNLABELLED)
