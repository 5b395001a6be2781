"""PixelCNN++: initialisation from data, dropout of elements, skips that are all used."""

import torch

from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.models.pixelcnn.plus_plus_network import concat_elu
from genlab.nn.shifted import WeightNormConv2d
from tests.models.pixelcnn.tiny_autoregressive import TWO_STREAM, make
from tests.models.tiny import make_batch, make_spec


def test_initialization_brings_the_first_loss_near_the_uniform_models():
    spec = make_spec(height=8, width=8, num_levels=256)
    model = PixelCNNPP(spec=spec, **TWO_STREAM)
    batch = make_batch(spec, 16)
    model.initialize(batch)
    bits = model.evaluate(batch)["bits_per_dim"].mean()
    assert 7 < bits < 11
    y = model.network.u_input(torch.nn.functional.pad(_with_ones(batch.images), (0, 0, 1, -1)))
    assert y.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(y.shape[1]), atol=1e-3, rtol=0)


def _with_ones(images):
    return torch.cat((2 * images - 1, torch.ones_like(images)), 1)


def test_initialization_leaves_no_hook_behind_and_is_deterministic():
    spec = make_spec()
    model = make(PixelCNNPP, spec, dropout=0.0)
    batch = make_batch(spec, 8)
    model.initialize(batch)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    model.evaluate(batch)
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())


def test_dropout_is_of_elements_and_not_of_whole_maps():
    """A public port drops whole feature maps instead."""
    layers = [module for module in make(PixelCNNPP).modules() if "Dropout" in type(module).__name__]
    assert layers
    torch.manual_seed(0)
    for layer in layers:
        layer.p = 0.5
        is_dropped = layer.train()(torch.ones(2, 3, 8, 8)).flatten(2) == 0
        assert (is_dropped.any(2) & ~is_dropped.all(2)).all()


def test_every_convolution_takes_part():
    """The way up uses each output of the way down exactly once, whatever the number of scales and blocks."""
    for blocks_down in ([1], [3], [1, 2], [2, 1, 3]):
        model = make(PixelCNNPP, make_spec(height=4, width=4), blocks_down=blocks_down)
        model.phases()[0].loss(make_batch(model.spec, 2)).value.backward()
        for name, module in model.named_modules():
            if isinstance(module, WeightNormConv2d):
                assert module.direction.grad.abs().sum() > 0, name


def test_binary_images_have_a_bernoulli_likelihood():
    model = make(PixelCNNPP)
    symbols = model.to_symbols(make_batch(model.spec, 3).images)
    logits = model.logits(symbols, torch.full((3,), -1))
    torch.testing.assert_close(logits.exp().sum(2), torch.ones(3, 1, 4, 4), atol=1e-5, rtol=0)


def test_concatenated_elu_is_that_of_both_signs_and_its_gradient():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.elu(torch.cat((x, -x), 1))
    torch.testing.assert_close(concat_elu(x), expected)
    weights = torch.randn_like(expected)
    (ours,), (theirs,) = (torch.autograd.grad((y * weights).sum(), x) for y in (concat_elu(x), expected))
    torch.testing.assert_close(ours, theirs)
