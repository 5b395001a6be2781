"""PixelCNN: the source document's table, what each pixel sees, and defects known from public programs."""

import math

import pytest
import torch

from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.gated_network import gate
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.models.pixelcnn.pixelcnn_network import ResidualBlock
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.models.pixelcnn.position_bias import RowAndColumnBias, add_positions
from genlab.nn.masked import BatchNorm
from tests.models.pixelcnn.tiny_autoregressive import RESIDUAL, make
from tests.models.tiny import make_batch, make_spec, num_parameters

DOCUMENT = {
    "num_blocks": 15,
    "stream_channels": 256,
    "block_channels": 128,
    "input_kernel": 7,
    "block_kernel": 3,
    "reduces": True,
    "head_channels": [128, 128],
    "normalization": BatchNorm,
    "dropout": 0.0,
    "position_bias": False,
}


def test_parameter_table_of_the_source_document():
    network = PixelCNN(spec=make_spec(height=28, width=28, num_levels=256), **DOCUMENT).network
    assert num_parameters(network.input) == 12_800
    assert num_parameters(network.input_norm) == 512
    assert [num_parameters(block) for block in network.blocks] == [214_528] * 15
    assert [num_parameters(layer) for layer in network.head] == [32_896, 16_512, 33_024]
    assert num_parameters(network) == 3_313_664


def seen_by(model, row, column, channel=0):
    """(C, H, W): which inputs the logits of one sub-pixel depend on, by the gradient at a random image."""
    x = torch.rand(1, model.spec.channels, model.spec.height, model.spec.width, requires_grad=True)
    labels = torch.full((1,), -1)
    network = model.network
    logits = network(x) if isinstance(model, PixelCNN) else network(x, labels)
    group = logits.unflatten(1, (model.spec.channels, -1))[0, channel, :, row, column]
    (group * torch.randn_like(group)).sum().backward()
    return x.grad[0].ne(0)


def make_open(kind, spec=None, **changes):
    if kind is PixelCNN:
        changes = {"num_blocks": 4, "position_bias": False} | changes
    elif kind is GatedPixelCNN:
        changes = {"num_layers": 5, "position_bias": False} | changes
    model = make(kind, spec or make_spec(height=8, width=9), **changes)
    # Small positive weights cannot cancel, keep every ReLU open and no tanh shut: a zero gradient means no path.
    for parameter in model.parameters():
        parameter.data.abs_().mul_(0.1)
    return model


def before(row, column, height=8, width=9):
    return torch.arange(height * width).view(height, width) < row * width + column


def test_the_plain_stack_has_a_blind_spot_to_the_upper_right():
    model = make_open(PixelCNN, input_kernel=3, num_blocks=6)
    seen = seen_by(model, 6, 4)[0]
    assert not (seen & ~before(6, 4)).any()
    # A 3x3 mask moves right only by going up: pixel (6 - d, 4 + s) is out of sight for s > d.
    for up in range(7):
        for right in range(1, 5):
            assert bool(seen[6 - up, 4 + right]) == (right <= up)
    assert seen[:7, :4].all()


def test_the_gated_network_sees_everything_before_a_pixel():
    model = make_open(GatedPixelCNN, input_kernel=3, num_layers=9)
    assert torch.equal(seen_by(model, 6, 4)[0], before(6, 4))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_gate_acts_within_each_colour_group(memory_format):
    x = torch.randn(2, 12, 3, 4).contiguous(memory_format=memory_format)
    groups = [x[:, 4 * g : 4 * g + 2].tanh() * x[:, 4 * g + 2 : 4 * g + 4].sigmoid() for g in range(3)]
    torch.testing.assert_close(gate(x, 3), torch.cat(groups, 1))
    assert gate(x, 3).is_contiguous(memory_format=memory_format)


def test_pixelcnn_pp_sees_everything_before_a_pixel():
    model = make(PixelCNNPP, make_spec(height=8, width=8, num_levels=256), blocks_down=[2, 2])
    seen = seen_by(model, 6, 4)[0]
    assert torch.equal(seen, torch.arange(64).view(8, 8) < 6 * 8 + 4)


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN])
def test_colours_are_generated_in_the_order_red_green_blue(kind):
    model = make_open(kind, make_spec(channels=3, height=3, width=3))
    for channel in range(3):
        seen = seen_by(model, 1, 1, channel)
        assert seen[:, 1, 1].tolist() == [earlier < channel for earlier in range(3)]
        assert seen[:, 1, 0].all()
        assert seen[:, 0, 1].all()
        assert not seen[:, 1, 2].any()
        assert not seen[:, 2].any()


def test_a_block_adds_its_input_once():
    """A public program adds it in the block and again around it, so that the stream doubles at every block."""
    settings = {"stream_channels": 4, "block_channels": 4, "kernel_size": 3, "num_groups": 1, "reduces": True}
    block = ResidualBlock(**settings, normalization=None, dropout=0.0)
    block.expand.weight.data.zero_()
    block.expand.bias.data.zero_()
    x = torch.randn(1, 4, 3, 3)
    assert torch.equal(block(x), x)


def test_an_untrained_deep_network_starts_near_the_uniform_distribution():
    """That program's first loss is above 100,000 nats on 784 binary pixels; log 2 per pixel is 543."""
    settings = RESIDUAL | {"num_blocks": 15, "stream_channels": 32, "block_channels": 16}
    model = PixelCNN(spec=make_spec(height=28, width=28), **settings).eval()
    nats = model.evaluate(make_batch(model.spec, 4))["nll_nats"]
    # The logits' own bias is drawn too: 0.6 to 87 nats away in 40 starts.
    torch.testing.assert_close(nats, torch.full((4,), 784 * math.log(2)), atol=300, rtol=0)


def test_unusable_choices_are_named():
    with pytest.raises(ValueError, match=r"model\.num_blocks must be an integer of at least 0"):
        make(PixelCNN, num_blocks=-1)
    with pytest.raises(ValueError, match=r"model\.dropout must be between 0 and 0\.99"):
        make(PixelCNN, dropout=1.0)
    for kind, key, least, side in (
        *((PixelCNN, "block_kernel", 1, 4), (PixelCNNBlocks, "input_kernel", 1, 0)),
        *((GatedPixelCNN, "input_kernel", 3, 4), (GatedPixelCNN, "kernel_size", 3, 1)),
    ):
        with pytest.raises(ValueError, match=rf"^model\.{key} must be odd and at least {least}, got {side}$"):
            make(kind, **{key: side})
    with pytest.raises(ValueError, match="cannot be split into 3 colour groups"):
        make(PixelCNN, make_spec(channels=3), block_channels=2)
    with pytest.raises(ValueError, match="divisible by the 3 image channels"):
        make(GatedPixelCNN, make_spec(channels=3), channels=7)
    with pytest.raises(ValueError, match="divisible by 2"):
        make(PixelCNNPP, make_spec(height=5))
    with pytest.raises(ValueError, match="even height and width"):
        make(PixelCNNBlocks, make_spec(height=5))
    with pytest.raises(ValueError, match="at most 1296 combinations"):
        make(PixelCNNBlocks, make_spec(num_levels=256))
    with pytest.raises(ValueError, match="pixel by pixel through GroupNorm"):
        make(PixelCNN, normalization=lambda channels, num_groups: torch.nn.GroupNorm(1, channels)).sample(1)


def test_a_compiled_network_is_the_trunk_and_logits_stay_in_fp32_under_autocast():
    model = make(PixelCNN)
    assert model.compilable() == (model.network,)
    batch = make_batch(model.spec, 2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.phases()[0].loss(batch)
        nats = model.evaluate(batch)["nll_nats"]
    assert loss.value.dtype == nats.dtype == torch.float32
    loss.value.backward()
    torch.testing.assert_close(nats, model.evaluate(batch)["nll_nats"], atol=0.2, rtol=0.05)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bias_per_position_and_its_gradient_are_those_of_a_broadcast_sum(memory_format):
    bias = RowAndColumnBias(6, (3, 4)).double()
    x = torch.randn(5, 6, 3, 4, dtype=torch.float64).to(memory_format=memory_format)
    for parameter in bias.parameters():
        torch.nn.init.normal_(parameter)
    weights, expected = torch.randn_like(x), x + (bias.rows[:, :, None] + bias.columns[:, None])
    torch.testing.assert_close(add_positions(x, bias()), expected)
    ours, theirs = (
        torch.autograd.grad((y * weights).sum(), tuple(bias.parameters())) for y in (add_positions(x, bias()), expected)
    )
    torch.testing.assert_close(ours, theirs)
