"""Invariants of the interface of models: measures, samples, and a complete state."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genlab.checks.subject import DoesNotApply, Finding, Subject, held_if
from genlab.measures import NOT_DECLARED
from genlab.models.base import GenerativeModel, Model
from genlab.types import Batch

_NUM_SAMPLES = 4
_NUM_ALONE, _NUM_TOGETHER = 17, 19
"""Batch sizes that differ from the other dimensions of a small model."""
_RANDOM = frozenset(
    {
        *(torch.rand, torch.randn, torch.randint, torch.normal, torch.bernoulli, torch.multinomial),
        *(torch.rand_like, torch.randn_like, torch.randint_like, Tensor.bernoulli_, Tensor.exponential_),
        *(Tensor.normal_, Tensor.random_, Tensor.uniform_),
    }
)


def measures_are_finite(subject: Subject) -> Finding:
    """Check that each measure has one finite value, or one curve, per example."""
    model = subject.fresh().eval()
    batch = subject.batch()
    measures = model.evaluate(batch)
    for name, values in measures.items():
        if len(values.shape) == 0 or len(values) != len(batch.images):
            return held_if(False, f"{name} has shape {tuple(values.shape)} for {len(batch.images)} images")
        if not bool(torch.isfinite(values).all()):
            return held_if(False, f"{name} is not finite")
    selecting = model.selection_measure
    if selecting is not None and selecting not in measures:
        return held_if(False, f"selection_measure {selecting} is none of {', '.join(measures)}")
    if selecting is not None and measures[selecting].dim() > 1:
        shape = tuple(measures[selecting].shape)
        return held_if(False, f"{selecting} has shape {shape}, a curve, and selects checkpoints")
    declared = [name if name in model.measures else f"{name} ({NOT_DECLARED})" for name in measures]
    return held_if(bool(measures), f"{', '.join(declared) or 'no measure'} of {len(batch.images)} images each")


def samples_follow_the_seed(subject: Subject) -> Finding:
    """Check that equal seeds give equal images, other seeds others, and that all are in [0, 1]."""
    model = subject.fresh(randomized=True).eval()
    if not isinstance(model, GenerativeModel):
        raise DoesNotApply("it draws no images")
    drawn = []
    for default_seed, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(default_seed)  # not used if a generator is given
        drawn.append(model.sample(_NUM_SAMPLES, generator=torch.Generator().manual_seed(seed)).detach())
    first, again, other = drawn
    expected = (_NUM_SAMPLES, subject.spec.channels, subject.spec.height, subject.spec.width)
    if first.shape != expected:
        return held_if(False, f"shape {tuple(first.shape)} instead of {expected}")
    low, high = min(x.min().item() for x in drawn), max(x.max().item() for x in drawn)
    if not (low >= 0 and high <= 1):  # NaN is outside, too
        return held_if(False, f"values from {low:.3g} to {high:.3g}, outside [0, 1]")
    if not torch.equal(first, again):
        return held_if(False, "the same generator drew other images: some noise is not taken from it")
    is_other = not torch.equal(first, other)
    seen = f"same seed same images, values from {low:.3g} to {high:.3g}"
    return held_if(is_other, seen if is_other else "another seed drew the same images")


def state_survives(subject: Subject) -> Finding:
    """Check that a model with the loaded state of another has the same measures, bit by bit."""
    model, other = subject.fresh(randomized=True), subject.fresh(seed=subject.seed + 1)
    other.load_state_dict(model.state_dict())
    batch = subject.batch()
    ours, theirs = _measured(model, batch), _measured(other, batch)
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    outcome = f"yet another {', '.join(different)}" if different else "same measures"
    return held_if(not different, f"{len(model.state_dict())} tensors, {outcome}")


def measures_are_of_the_image(subject: Subject) -> Finding:
    """Check that measures of images are equal in a larger batch, unless the model declares that they differ."""
    model = subject.fresh(randomized=True).eval()
    batch = subject.batch(_NUM_TOGETHER)
    together = _measured_without_chance(model, batch)
    alone = _measured_without_chance(model, Batch(images=batch.images[:_NUM_ALONE], labels=batch.labels[:_NUM_ALONE]))
    moved = [
        name
        for name, values in alone.items()
        if not torch.allclose(values, together[name][:_NUM_ALONE], rtol=1e-3, atol=1e-4)
    ]
    seen = f"{', '.join(moved) or 'nothing'} moved from {_NUM_ALONE} images to {_NUM_TOGETHER}"
    if model.couples_images:
        return held_if(True, f"{seen}, and the model declares couples_images")
    return held_if(not moved, seen + (", and the model does not declare couples_images" if moved else ""))


@torch.no_grad()
def _measured_without_chance(model: Model, batch: Batch) -> Mapping[str, Tensor]:
    with _RowsOfNoise(len(batch.images)):
        return model.diagnose(batch, num_importance_samples=2)


class _RowsOfNoise(TorchFunctionMode):
    """Replaces random draws by fixed values, each row of a batch with its own, whatever the size of the batch.

    Args:
        num_rows: Size of the batch.
    """

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.num_rows = num_rows

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _RANDOM or not isinstance(result, Tensor):
            return result
        with torch.no_grad():
            result.zero_()
            for dim, size in enumerate(result.shape):
                if size == self.num_rows and result.is_floating_point():
                    shape = [-1 if index == dim else 1 for index in range(result.dim())]
                    result += torch.linspace(0.1, 0.9, _NUM_TOGETHER).to(result)[:size].view(shape)
        return result


def _measured(model: Model, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return model.eval().evaluate(batch)
