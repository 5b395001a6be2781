"""Fixed-point decoding draws the images of the incremental sampler, with full passes alone."""

import pytest
import torch
from torch import nn

from genlab.checks.subject import has
from genlab.models.capabilities import SamplesIncrementally
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.parallel import solve_symbols
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from tests.models.pixelcnn.tiny_autoregressive import MODELS, make
from tests.models.tiny import make_spec
from tests.thinning import slow


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("temperature", [0.7, slow(1.0)])
@pytest.mark.parametrize("kind", MODELS)
def test_the_images_are_those_of_the_incremental_sampler(kind, temperature, dtype):
    """Drawn and completed from the middle of a row on; in float32 for one seed, where no uniform lies on a tie."""
    is_conditional = kind in (GatedPixelCNN, PixelCNNPP)
    facts = {} if kind is PixelCNNBlocks else {"channels": 3 if dtype is torch.float64 else 1, "num_levels": 3}
    spec = make_spec(num_classes=3, **facts)
    model = make(kind, spec, **({"class_conditional": True} if is_conditional else {})).to(dtype)
    labels = torch.tensor([2, 0, 1]) if is_conditional else None
    given = torch.arange(spec.height * spec.width).view(spec.height, spec.width) < spec.width + 2
    given = spec.height // 2 if kind is PixelCNNBlocks else given

    def draw(method):
        options = {"labels": labels, "temperature": temperature, "method": method}
        samples = model.sample(3, generator=torch.Generator().manual_seed(5), **options)
        completions = model.complete(1 - samples, given, generator=torch.Generator().manual_seed(6), **options)
        return samples, completions

    (samples, completions), (own_samples, own_completions) = draw("incremental"), draw("parallel")
    assert len(samples.unique()) == spec.num_levels
    assert torch.equal(own_samples, samples)
    assert torch.equal(own_completions, completions)


def counts_of_earlier(symbols, rows, last):
    """A chain along all symbols, each one more than the one before it, up to a last value."""
    ordered = symbols.permute(0, 2, 3, 1)
    flat = nn.functional.pad(ordered.flatten(1), (1, -1), value=-1)
    return (flat + 1).clamp(max=last[:, None]).view_as(ordered).permute(0, 3, 1, 2)[:, :, rows]


@pytest.mark.parametrize(("rows_at_once", "image_passes"), [(None, 11 + 1 + 4), (1, 11 + 3 + 11)])
def test_solved_images_leave_the_batch_and_final_rows_are_not_drawn_again(rows_at_once, image_passes):
    last = torch.tensor([10, 0, 3])  # Jacobi: a pass for each change of symbol 1, 2, ... last, and one without a change
    seen = []

    def redraw(symbols, images, rows):
        seen.append((len(images), rows.start, rows.stop))
        return counts_of_earlier(symbols, rows, last[images])

    solved = solve_symbols(redraw, torch.zeros(3, 2, 3, 2, dtype=torch.long), rows_at_once=rows_at_once)
    expected = torch.arange(12).clamp(max=last[:, None]).view(3, 3, 2, 2).permute(0, 3, 1, 2)
    assert torch.equal(solved.symbols, expected)
    assert solved.num_passes == len(seen) == 11
    assert sum(size for size, _, _ in seen) == image_passes
    assert {stop - start for _, start, stop in seen} == ({1} if rows_at_once else {1, 2, 3})


def test_a_start_that_is_the_solution_costs_one_pass():
    start = torch.arange(6).view(1, 1, 2, 3)
    solved = solve_symbols(lambda x, _, rows: counts_of_earlier(x, rows, torch.tensor([9])), start)
    assert solved.num_passes == 1


def test_passes_are_at_most_the_symbols_even_if_each_one_changes_everything():
    def redraw(symbols, images, rows):
        return 1 - symbols[:, :, rows]

    assert solve_symbols(redraw, torch.zeros(2, 1, 2, 3, dtype=torch.long)).num_passes == 6


class Stripes(AutoregressiveModel):
    """A model of a user's own that has logits and nothing else: a pixel mostly equals its left neighbour."""

    def __init__(self, spec):
        grid = (spec.height, spec.width)
        super().__init__(spec=spec, num_symbols=1, num_values=2, grid=grid, class_conditional=False)
        self.strength = nn.Parameter(torch.tensor(2.0))

    def logits(self, symbols, labels):
        left = nn.functional.pad(symbols, (1, -1), value=0)
        return nn.functional.one_hot(left, 2).movedim(-1, 2) * self.strength


def test_a_model_needs_only_logits():
    model = Stripes(make_spec(channels=1, height=3, width=8))
    assert not has(model, SamplesIncrementally)
    images = model.sample(4, generator=torch.Generator().manual_seed(0))
    uniforms = model.uniforms(4, generator=torch.Generator().manual_seed(0))
    expected, left = torch.zeros_like(images), torch.zeros(4, 1, 3)
    for column in range(8):
        probability = torch.where(left == 0, torch.tensor(2.0).sigmoid(), torch.tensor(-2.0).sigmoid())
        left = expected[..., column] = (uniforms[..., column] >= probability).float()
    assert torch.equal(images, expected)
    assert torch.equal(model.complete(1 - images, 3), 1 - images)
    with pytest.raises(ValueError, match="method must be auto or parallel for Stripes, which has no decoder"):
        model.sample(1, method="incremental")
