"""DRAW against exact probabilities, finite differences and its own parts.

``listing_mistake_n`` fails on the n-th mistake of the source listing (1 to 4 and 8: test_attention.py; 9:
tests/test_functional.py; 7, clipping by global norm, is the trainer's).
"""

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from genlab.checks.variational import correlation_of_noise, kl_at_the_prior, kl_of_distributions, observe
from genlab.models.draw.draw import DRAW
from genlab.models.draw.observation import DiscretizedLogistic
from genlab.nn.recurrent import update_cell
from genlab.sampling.pictures import grid, sheet
from genlab.types import Batch
from tests.models.tiny import assert_slope, make_batch, make_draw, make_spec, randomize
from tests.thinning import thinned

ATTENTION = list(itertools.product((None, 2), (None, 3)))


def seeded_loss(model: DRAW, batch: Batch) -> Tensor:
    torch.manual_seed(5)
    return model.loss(batch).value


def test_listing_mistake_5_kl_is_zero_where_the_posterior_is_the_prior() -> None:
    """T = 3 glimpses of Z = 2 latents: a constant of 1/2 or of T/2 for each glimpse would show."""
    model = make_draw()
    randomize(model, 0.5)
    batch = make_batch(model.spec, 4)
    assert kl_at_the_prior(model, batch).tolist() == [0.0] * 4
    torch.nn.init.zeros_(model.glimpse.posterior.weight)
    torch.nn.init.zeros_(model.glimpse.posterior.bias)
    measures = model.evaluate(batch)
    assert torch.equal(measures["nll_upper_bound_nats"], measures["reconstruction_nats"])


def test_listing_mistake_5_kl_is_that_of_torch() -> None:
    model = make_draw()
    randomize(model, 0.5)
    observed = observe(model, make_batch(model.spec, 4))
    torch.testing.assert_close(observed.measures["kl_nats"], kl_of_distributions(observed))


def test_listing_mistake_6_every_glimpse_draws_fresh_noise() -> None:
    model = make_draw()
    randomize(model, 0.3)
    correlation = correlation_of_noise(observe(model, make_batch(model.spec, 4000)))
    torch.testing.assert_close(correlation, torch.eye(6), atol=5 / math.sqrt(4000), rtol=0)
    assert not torch.equal(model._noise(2), model._noise(2))


def test_reconstruction_is_the_negative_log_probability_of_the_last_canvas() -> None:
    model = make_draw()
    batch = make_batch(model.spec, 3)
    torch.manual_seed(1)
    measured = model.evaluate(batch)["reconstruction_nats"]
    torch.manual_seed(1)
    *_, (last, _) = model._unroll(batch.images.transpose(1, 2), model._noise(3))
    mean = torch.sigmoid(last.canvas).transpose(1, 2)
    expected = -torch.where(batch.images > 0, mean.log(), (1 - mean).log()).flatten(1).sum(1)
    torch.testing.assert_close(measured, expected)


@pytest.mark.parametrize(("read_size", "write_size"), ATTENTION)
@pytest.mark.parametrize("channels", thinned([1, 2], 2))
def test_gradient_of_the_whole_loss_is_that_of_finite_differences(
    read_size: int | None, write_size: int | None, channels: int
) -> None:
    model = make_draw(make_spec(channels=channels, height=3), read_size=read_size, write_size=write_size).double()
    randomize(model, 0.1)
    batch = make_batch(model.spec, 2, dtype=torch.float64)
    seeded_loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        assert_slope(lambda: seeded_loss(model, batch), name, parameter, atol=1e-7)


def test_reading_everything_sees_the_image_beside_its_error() -> None:
    """The part of the encoder that is taken out of the loop, against the paper's [x, x_hat] in one product."""
    model = make_draw(read_size=None).double()
    randomize(model, 0.3)
    images = make_batch(model.spec, 3, dtype=torch.float64).images.transpose(1, 2)
    state = model._initial_state(3)
    weight, bias = model.glimpse.encoder_weights(images)
    states = torch.cat((state.decoder_hidden, state.encoder_hidden), 1)
    hoisted = torch.cat((torch.sigmoid(state.canvas).flatten(1), states), 1) @ weight.T + bias
    error = images - torch.sigmoid(state.canvas)
    plain = torch.cat((images.flatten(1), error.flatten(1), states), 1) @ model.glimpse.encoder.weight.T
    torch.testing.assert_close(hoisted, plain + model.glimpse.encoder.bias)


def exact_log_probabilities(model: DRAW, images: Tensor) -> Tensor:
    """log p(x) by the midpoint rule over both latents of a model with T = 2, Z = 1."""
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    first, second = torch.meshgrid(axis, axis, indexing="ij")
    latents = torch.stack((first.flatten(), second.flatten())).unsqueeze(2)  # (T, R, Z)
    log_prior = Normal(0.0, 1.0).log_prob(latents).sum((0, 2)) + 2 * math.log(axis[1] - axis[0])
    *_, last = model._generate(latents)
    rows = []
    for image in images:
        lines = image.transpose(0, 1).expand(latents.shape[1], -1, -1, -1)
        rows.append(torch.logsumexp(log_prior - model.observation.nll(last.canvas, lines), 0))
    return torch.stack(rows)


@torch.no_grad()
def test_bound_is_above_the_importance_weighted_bound_is_above_the_exact_likelihood() -> None:
    spec = make_spec(height=2, width=2)
    model = make_draw(spec, num_glimpses=2, latent_size=1, write_size=2).double()
    randomize(model, 0.35)
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(16, 1, 2, 2)
    exact = -exact_log_probabilities(model, images)
    assert torch.exp(-exact).sum().item() == pytest.approx(1.0, abs=1e-6)  # over all binary 2x2 images

    batch = Batch(images=images, labels=torch.full((16,), -1))
    measured = model.diagnose(batch, num_importance_samples=10_000)["nll_importance_weighted_nats"]
    torch.testing.assert_close(measured, exact, atol=0.03, rtol=0)
    assert torch.exp(-measured).sum().item() == pytest.approx(1.0, abs=0.01)

    repeated = Batch(images=images.repeat(1000, 1, 1, 1), labels=torch.full((16_000,), -1))
    bound = model.evaluate(repeated)["nll_upper_bound_nats"].view(1000, 16).mean(0)
    weighted = model.diagnose(repeated, num_importance_samples=5)["nll_importance_weighted_nats"].view(1000, 16).mean(0)
    assert (bound > weighted).all()
    assert (weighted > exact).all()
    assert (bound - exact).max() > 0.02  # the gap that K samples close is there to be closed


@torch.no_grad()
def test_one_importance_sample_gives_the_bound_in_expectation() -> None:
    model = make_draw()
    randomize(model, 0.3)
    image = make_batch(model.spec, 1).images
    batch = Batch(images=image.expand(20_000, -1, -1, -1), labels=torch.full((20_000,), -1))
    measures = model.diagnose(batch, num_importance_samples=1)
    bound, weighted = measures["nll_upper_bound_nats"], measures["nll_importance_weighted_nats"]
    standard_error = math.sqrt((bound.var() + weighted.var()) / 20_000)
    assert abs(bound.mean() - weighted.mean()) < 4 * standard_error


@torch.no_grad()
def test_importance_weights_do_not_depend_on_how_the_passes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 images take two samples a pass; the rows of each pass belong to the images in their order."""
    model = make_draw()
    randomize(model, 0.3)
    images = make_batch(model.spec, 512).images.transpose(1, 2)
    whole = model._noise(5 * 512)
    pieces = iter(whole.split([1024, 1024, 512], 1))
    monkeypatch.setattr(model, "_noise", lambda _: next(pieces))
    cut = model._log_weights(images, 5)
    monkeypatch.setattr(model, "_noise", lambda _: whole)
    monkeypatch.setattr("genlab.models.draw.draw._ROWS_PER_PASS", 5 * 512)
    torch.testing.assert_close(cut, model._log_weights(images, 5))


@torch.no_grad()
def test_curves_over_the_glimpses_end_in_the_bound() -> None:
    model = make_draw(num_glimpses=4)
    randomize(model, 0.3)
    batch = make_batch(model.spec, 6)
    measures = model.diagnose(batch, num_importance_samples=0)
    assert "nll_importance_weighted_nats" not in measures
    assert measures["kl_per_glimpse_nats"].shape == (6, 4)
    torch.testing.assert_close(measures["kl_per_glimpse_nats"].sum(1), measures["kl_nats"])
    by_glimpses = measures["nll_upper_bound_by_glimpses_nats"]
    torch.testing.assert_close(by_glimpses[:, -1], measures["nll_upper_bound_nats"])

    torch.manual_seed(3)
    by_glimpses = model.diagnose(batch, num_importance_samples=0)["nll_upper_bound_by_glimpses_nats"]
    torch.manual_seed(3)
    noise = model._noise(6)
    stopped = list(model._unroll(batch.images.transpose(1, 2), noise[:2]))
    kl = sum(kl_divergence(Normal(q.mu, q.log_sigma.exp()), Normal(0.0, 1.0)).sum(1) for _, q in stopped)
    images = batch.images.transpose(1, 2)
    torch.testing.assert_close(by_glimpses[:, 1], kl + model.observation.nll(stopped[-1][0].canvas, images))


@torch.no_grad()
def test_an_interpolation_goes_from_one_latent_to_the_next() -> None:
    model = make_draw()
    randomize(model, 0.3)
    ends = model._noise(4)
    *_, last = model._generate(ends)
    images = model.observation.mean(last.canvas).transpose(1, 2)
    torch.testing.assert_close(model._interpolate(ends, 3)[[0, 2, 3, 5]], images)


def test_read_and_write_have_layers_of_their_own() -> None:
    """Two LSTMs, the posterior, 5 outputs for the read window, 5 and a patch for the write window; nothing shared."""
    units, latents, read, write = 5, 2, 2, 3
    model = make_draw(learned_states=False, initial_canvas="zero")
    encoder = 4 * units * (2 * read**2 + units + units) + 4 * units
    decoder = 4 * units * (latents + units) + 4 * units
    heads = (units + 1) * (2 * latents + 5 + 5 + write**2)
    assert sum(parameter.numel() for parameter in model.parameters()) == encoder + decoder + heads
    learned = make_draw()
    assert sum(p.numel() for p in learned.parameters()) == encoder + decoder + heads + 4 * units + 16


@torch.no_grad()
def test_a_write_uses_the_current_state_of_the_decoder_and_a_read_the_one_before() -> None:
    model = make_draw()
    randomize(model, 0.5)
    state = model._initial_state(1)
    images = make_batch(model.spec, 1).images.transpose(1, 2)
    (after, _), *_ = model._unroll(images, model._noise(1))
    torch.testing.assert_close(after.canvas - state.canvas, model.glimpse.write(after.decoder_hidden))
    (patch,) = model.glimpse.read((images,), state.decoder_hidden)
    (error_patch,) = model.glimpse.read((images - torch.sigmoid(state.canvas),), state.decoder_hidden)
    cell = model.glimpse.encoder
    inputs = torch.cat((patch, error_patch, state.decoder_hidden, state.encoder_hidden), 1)
    hidden, _ = update_cell(inputs @ cell.weight.T + cell.bias, state.encoder_cell)
    torch.testing.assert_close(after.encoder_hidden, hidden)


@pytest.mark.parametrize(("read_size", "write_size"), ATTENTION)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_levels", [2, 17, 256])
def test_every_shape_trains_and_draws(
    read_size: int | None, write_size: int | None, channels: int, num_levels: int
) -> None:
    spec = make_spec(channels=channels, height=5, width=4, num_levels=num_levels)
    model = make_draw(spec, read_size=read_size, write_size=write_size, initial_canvas="training_mean")
    batch = make_batch(spec, 6)
    model.initialize(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = [parameter.clone() for parameter in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        seeded_loss(model, batch).backward()
        optimizer.step()
    assert seeded_loss(model, batch).isfinite()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    pictures = model.visualize(batch, num_samples=4) | {"drawn": model.sample(3)}
    assert model.sample(3).shape == (3, channels, 5, 4)
    assert pictures["reconstructions"].shape == (4, channels, 5, 4)
    assert torch.equal(pictures["reconstructions"][::2], batch.images[:2])
    assert all(0 <= picture.min() <= picture.max() <= 1 for picture in pictures.values())


@pytest.mark.slow
def test_training_lowers_the_bound_below_that_of_independent_pixels() -> None:
    """Images of one column in four: a per-pixel model needs 9 nats, one that knows the column log 4 = 1.39."""
    spec = make_spec()
    images = torch.zeros(4, 1, 4, 4)
    for column in range(4):
        images[column, 0, :, column] = 1
    batch = Batch(images=images.repeat(16, 1, 1, 1), labels=torch.full((64,), -1))
    model = make_draw(spec, num_units=32, initial_canvas="training_mean")
    model.initialize(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(batch).value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    bound = model.evaluate(batch)["nll_upper_bound_nats"].mean().item()
    assert math.log(4) < bound < 4.0


def test_canvas_starts_at_the_logits_of_the_training_mean() -> None:
    model = make_draw(initial_canvas="training_mean", num_glimpses=1)
    images = torch.zeros(98, 1, 4, 4)
    images[:49, 0, 0, 1] = 1
    model.initialize(Batch(images=images, labels=torch.full((98,), -1)))
    canvas = torch.sigmoid(model.initial_canvas)  # (H, C, A)
    assert canvas[0, 0, 1].item() == pytest.approx(0.5)
    assert canvas[3, 0, 3].item() == pytest.approx(0.01)
    untouched = make_draw(initial_canvas="learned")
    untouched.initialize(Batch(images=images, labels=torch.full((98,), -1)))
    assert (untouched.initial_canvas == 0).all()


def test_samples_are_the_last_canvases_and_follow_the_generator() -> None:
    model = make_draw(make_spec(channels=3))
    randomize(model, 0.5)
    first = model.sample(4, generator=torch.Generator().manual_seed(7))
    pictures = model.visualize(None, num_samples=4, generator=torch.Generator().manual_seed(7))
    assert first.shape == (4, 3, 4, 4)
    assert torch.equal(pictures["samples"], first)
    assert not torch.equal(first, model.sample(4, generator=torch.Generator().manual_seed(8)))
    with pytest.raises(ValueError, match="not class-conditional"):
        model.sample(2, labels=torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(("num_samples", "num_arcs", "length"), [(3, 1, 3), (16, 2, 8), (64, 8, 8)])
def test_a_row_of_the_picture_of_interpolations_is_an_arc(num_samples: int, num_arcs: int, length: int) -> None:
    model = make_draw()
    images = model.visualize(None, num_samples=num_samples)["interpolation"]
    assert len(images) == num_arcs * length
    picture = sheet(images, group=model.picture_groups["interpolation"])
    assert torch.equal(picture, grid(images, num_columns=length))


def test_a_batch_is_its_images() -> None:
    """No example sees another: the measures of a batch are those of its parts, from the same noise."""
    model = make_draw()
    randomize(model, 0.3)
    images = make_batch(model.spec, 4).images.transpose(1, 2)
    noise = model._noise(4)
    *_, (together, _) = model._unroll(images, noise)
    *_, (alone, _) = model._unroll(images[2:3], noise[:, 2:3])
    torch.testing.assert_close(together.canvas[2:3], alone.canvas)


def test_autocast_keeps_canvas_states_and_loss_in_single_precision() -> None:
    model = make_draw(num_units=64)
    batch = make_batch(model.spec, 4)
    expected = seeded_loss(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = seeded_loss(model, batch)
        states = [state for state, _ in model._unroll(batch.images.transpose(1, 2), model._noise(4))]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in states[-1])
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"read_size": 5}, r"model.read_size must be between 1 and 4 \(the image size\), got 5"),
        ({"write_size": 0}, r"model.write_size must be between 1 and 4 \(the image size\), got 0"),
        ({"num_glimpses": 0}, "model.num_glimpses must be an integer of at least 1, got 0"),
        ({"num_units": -1}, "model.num_units must be an integer of at least 1, got -1"),
        ({"latent_size": 0}, "model.latent_size must be an integer of at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_draw(**changes)


def test_an_observation_model_is_built_from_the_measured_levels() -> None:
    model = make_draw(make_spec(num_levels=17), observation=DiscretizedLogistic)
    assert isinstance(model.observation, DiscretizedLogistic)
    assert model.observation.num_levels == 17


@pytest.mark.slow
@pytest.mark.parametrize("read_size", ["None", "2"])
def test_compiled_glimpse_gives_the_same_loss_and_gradients(read_size: str) -> None:
    """In a process of its own: the compiler cannot trace through the shape checks that pytest installs."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.models.draw.compiled_draw", read_size]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr


def test_a_bound_of_images_that_are_no_levels_is_refused() -> None:
    model = make_draw(make_spec())
    batch = make_batch(make_spec(), 2)
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\].* some values lie outside$"):
        model.evaluate(Batch(images=batch.images * 2 - 1, labels=batch.labels))
    with pytest.raises(ValueError, match=r"some values lie between two levels; binarise them$"):
        model.evaluate(Batch(images=batch.images * 0.9, labels=batch.labels))
