"""The incremental sampler draws from the model itself: same logits, same images from the same uniforms."""

import runpy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.recorded_graph import RecordedGraphs
from genlab.checks.autoregressive import decode, draw_with_full_passes
from genlab.models.pixelcnn import autoregressive, sampler
from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.models.pixelcnn.sampler import draw_symbols, invert_cdf
from genlab.nn.masked import BatchNorm, PixelNorm
from genlab.types import UNLABELLED
from tests.models.pixelcnn.tiny_autoregressive import MODELS, make
from tests.models.tiny import make_batch, make_spec
from tests.thinning import slow

CHEAP = settings(deadline=None, max_examples=10)
KERNELS = st.sampled_from([3, 5, 7])
SPECS = st.builds(
    make_spec,
    channels=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    num_levels=st.integers(2, 5),
    num_classes=st.sampled_from([0, 3]),
)


def check(model, *, num_samples=2):
    """Logits within 1e-4 of the full pass on a random image, in units of the largest where that is above 1."""
    batch = make_batch(model.spec, num_samples)
    symbols = model.to_symbols(batch.images)
    with torch.no_grad():
        full = model.logits(symbols, batch.labels)
    incremental = decode(model, symbols, batch.labels, torch.float32)
    torch.testing.assert_close(incremental, full, atol=1e-4 * max(1.0, float(full.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN])
def test_many_logits_share_a_bias_per_row_and_one_per_column(kind):
    model = make(kind, make_spec(channels=3, num_levels=12, height=3, width=5))
    bias = model.network.logit_position
    assert sum(parameter.numel() for parameter in bias.parameters()) == 3 * 12 * (3 + 5)
    torch.testing.assert_close(bias()[7, 1, 4], bias.rows[7, 1] + bias.columns[7, 4])
    check(model)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("facts", [slow({}), {"channels": 2, "num_classes": 3}], ids=str)
def test_the_same_uniforms_give_the_same_image(kind, facts):
    model = make(kind, make_spec(**facts), **conditional(kind, facts))
    labels = torch.tensor([2, 0]) if model.num_classes else None
    drawn = model.sample(2, labels=labels, generator=torch.Generator().manual_seed(3))
    uniforms = model.uniforms(2, generator=torch.Generator().manual_seed(3))
    full = draw_with_full_passes(model, uniforms, torch.full((2,), UNLABELLED) if labels is None else labels)
    assert torch.equal(drawn, full)
    assert len(full.unique()) == 2


def conditional(kind, facts):
    return {"class_conditional": True} if facts and kind in (GatedPixelCNN, PixelCNNPP) else {}


@CHEAP
@given(
    spec=SPECS,
    input_kernel=KERNELS,
    block_kernel=KERNELS,
    reduces=st.booleans(),
    normalization=st.sampled_from([None, BatchNorm, PixelNorm]),
    position_bias=st.booleans(),
    head_channels=st.sampled_from([[], [5], [6, 4]]),
)
def test_pixelcnn(spec, normalization, **choices):
    model = make(PixelCNN, spec, normalization=normalization, **choices)
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    check(model)


@CHEAP
@given(
    spec=SPECS,
    input_kernel=KERNELS,
    kernel_size=KERNELS,
    num_layers=st.integers(1, 3),
    position_bias=st.booleans(),
)
def test_gated_pixelcnn(spec, **choices):
    check(make(GatedPixelCNN, spec, class_conditional=spec.num_classes > 0, **choices))


@CHEAP
@given(
    channels=st.integers(1, 3),
    size=st.sampled_from([(4, 4), (8, 4), (4, 8)]),
    num_levels=st.sampled_from([2, 5, 256]),
    num_classes=st.sampled_from([0, 3]),
    blocks_down=st.sampled_from([[2], [1, 2], [1, 1, 2]]),
)
def test_pixelcnn_pp(channels, size, num_levels, num_classes, blocks_down):
    spec = make_spec(channels=channels, height=size[0], width=size[1], num_levels=num_levels, num_classes=num_classes)
    check(make(PixelCNNPP, spec, blocks_down=blocks_down, class_conditional=num_classes > 0))


@CHEAP
@given(
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    facts=st.sampled_from([(1, 2), (1, 3), (2, 2)]),
    reduces=st.booleans(),
    position_bias=st.booleans(),
)
def test_pixelcnn_blocks(height, width, facts, **choices):
    spec = make_spec(channels=facts[0], num_levels=facts[1], height=2 * height, width=2 * width)
    check(make(PixelCNNBlocks, spec, **choices))


@pytest.mark.parametrize("kind", MODELS)
def test_bfloat16_follows_the_full_pass_in_bfloat16(kind):
    model = make(kind, make_spec(height=4, width=4))
    batch = make_batch(model.spec, 2)
    symbols = model.to_symbols(batch.images)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        full = model.logits(symbols, batch.labels).log_softmax(2)
    assert full.dtype == torch.float32
    incremental = decode(model, symbols, batch.labels, torch.bfloat16).log_softmax(2)
    assert (incremental - full).abs().max() < 0.15
    with torch.autocast("cpu", torch.bfloat16):
        images = model.sample(2)
    assert images.dtype == torch.float32


@pytest.mark.parametrize("kind", MODELS)
def test_images_do_not_depend_on_the_batch_they_are_drawn_in(kind):
    model = make(kind)
    few, many = (model.sample(n, generator=torch.Generator().manual_seed(0)) for n in (4, 8))
    assert torch.equal(few, many[:4])


@pytest.mark.parametrize("kind", MODELS)
def test_recorded_rows_are_the_rows_as_written(kind):
    """Rows that are given, which need no logits, one that is given in part, which is drawn as written, and others."""
    facts = {"channels": 1 if kind is PixelCNNBlocks else 3, "height": 8, "width": 4, "num_classes": 3}
    model = make(kind, make_spec(**facts), **conditional(kind, facts))
    labels = torch.tensor([2, 0])
    height, width = model.grid
    num_given = 2 * width + 1
    uniforms = torch.rand(2, model.num_symbols, *model.grid)
    given = torch.randint(model.num_values, uniforms.shape)
    graphs = RecordedGraphs()
    drawn, recorded = (
        draw_symbols(
            model.decoder(labels, dtype=torch.float32),
            uniforms,
            given=given,
            num_given_sites=num_given,
            temperature=0.9,
            graphs=chosen,
        )
        for chosen in (None, graphs)
    )
    assert torch.equal(drawn, recorded)
    period = model.decoder(labels, dtype=torch.float32).row_period
    assert graphs.num_recorded == 1 + min(period, height - 3), "one given row and a period of others"
    assert graphs.num_replays == height - 2
    first_sites = recorded.permute(0, 2, 3, 1).flatten(1, 2)[:, :num_given]
    assert torch.equal(first_sites, given.permute(0, 2, 3, 1).flatten(1, 2)[:, :num_given])


def test_images_that_do_not_fit_together_are_drawn_in_parts(monkeypatch):
    model = make(GatedPixelCNN, make_spec(num_classes=3), class_conditional=True)
    choices = {"labels": torch.tensor([0, 1, 2, 0, 1]), "temperature": 0.8}
    together = model.sample(5, generator=torch.Generator().manual_seed(0), **choices)
    monkeypatch.setattr(autoregressive, "images_that_fit", lambda make_decoder, num_images, device: 2)
    in_parts = model.sample(5, generator=torch.Generator().manual_seed(0), **choices)
    assert torch.equal(together, in_parts)
    completed = model.complete(in_parts, 2, generator=torch.Generator().manual_seed(0), **choices)
    assert torch.equal(completed[:, :, :2], in_parts[:, :, :2])


def test_a_decoder_that_does_not_repeat_is_drawn_from_as_written():
    model = make(PixelCNN)
    decoder = model.decoder(torch.full((2,), UNLABELLED), dtype=torch.float32)

    class Plain:
        begin_row, advance, logits, write = decoder.begin_row, decoder.advance, decoder.logits, decoder.write

    graphs = RecordedGraphs()
    draw_symbols(Plain(), torch.rand(2, 1, *model.grid), graphs=graphs)
    assert graphs.num_recorded == 0


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MODELS)
def test_a_gpu_draws_the_same_images(kind):
    model = make(kind)
    expected = model.sample(8, generator=torch.Generator().manual_seed(0))
    drawn = model.cuda().sample(8, generator=torch.Generator().manual_seed(0)).cpu()
    assert (drawn != expected).float().mean() < 0.01  # ties in float arithmetic


@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12),
    uniform=st.floats(0, 1, exclude_max=True, width=32),
)
def test_inverted_cdf_is_the_definition(logits, uniform):
    probabilities = torch.tensor([logits]).softmax(1)
    drawn = invert_cdf(torch.tensor([logits]), torch.tensor([uniform])).item()
    cumulative = probabilities[0].double().cumsum(0)
    below = cumulative[drawn - 1].item() if drawn else 0.0
    assert below - 1e-5 <= uniform <= cumulative[drawn].item() + 1e-5
    assert probabilities[0, drawn] > 0


def test_inverted_cdf_draws_with_the_given_frequencies():
    logits = torch.tensor([0.5, -1.0, 0.0])
    uniforms = (torch.arange(10_000) + 0.5) / 10_000
    drawn = invert_cdf(logits.expand(10_000, -1), uniforms)
    torch.testing.assert_close(drawn.bincount() / 10_000, logits.softmax(0), atol=2e-4, rtol=0)
    cold = invert_cdf(logits.expand(10_000, -1), uniforms, temperature=0.5)
    torch.testing.assert_close(cold.bincount() / 10_000, (2 * logits).softmax(0), atol=2e-4, rtol=0)


@pytest.mark.parametrize("temperature", [1e-10, 1e-40, 5e-324])
def test_the_likeliest_values_share_all_near_temperature_zero(temperature: float):
    logits = torch.tensor([3.0, -torch.inf, 3.0, 2.0])
    uniforms = (torch.arange(1000) + 0.5) / 1000
    assert invert_cdf(logits.expand(1000, -1), uniforms, temperature=temperature).bincount().tolist() == [500, 0, 500]


def test_a_value_of_probability_zero_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    assert invert_cdf(logits, torch.tensor([0.0, 0.5, 1 - 2**-24])).tolist() == [1, 1, 1]


def test_symbols_that_are_not_given_and_temperatures_below_zero_are_refused() -> None:
    draw = runpy.run_path(sampler.__file__)["draw_symbols"]  # without the checks of types that the tests add
    uniforms = torch.rand(2, 1, 3, 3)
    with pytest.raises(ValueError, match=r"given must have the shape of the uniforms, .*, got none"):
        draw(object(), uniforms, num_given_sites=1)
    with pytest.raises(ValueError, match="given must have the shape"):
        draw(object(), uniforms, given=torch.zeros(1, *uniforms.shape[1:], dtype=torch.long), num_given_sites=1)
    with pytest.raises(ValueError, match="temperature must be positive, got -1"):
        draw(object(), uniforms, temperature=-1.0)
