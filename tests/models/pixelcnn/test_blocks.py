"""Blocks of pixels as symbols: a bijection, and the same likelihood whichever way it is summed."""

import pytest
import torch

from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from tests.models.pixelcnn.tiny_autoregressive import make
from tests.models.tiny import make_batch, make_spec


@pytest.mark.parametrize(("channels", "num_levels"), [(1, 2), (1, 6), (2, 2)])
def test_symbols_are_a_bijection_of_blocks(channels, num_levels):
    model = make(PixelCNNBlocks, make_spec(channels=channels, num_levels=num_levels, height=2, width=2))
    symbols = torch.arange(model.num_values).view(-1, 1, 1, 1)
    images = model.to_images(symbols)
    assert len(images.unique(dim=0)) == model.num_values
    assert torch.equal(model.to_symbols(images), symbols)


def test_blocks_keep_their_place():
    model = make(PixelCNNBlocks, make_spec(height=4, width=6))
    images = torch.zeros(1, 1, 4, 6)
    images[0, 0, 3, 4] = 1
    assert model.to_symbols(images)[0, 0].nonzero().tolist() == [[1, 2]]
    batch = make_batch(model.spec, 3)
    assert torch.equal(model.to_images(model.to_symbols(batch.images)), batch.images)


def test_evaluation_counts_pixels_and_not_blocks():
    model = make(PixelCNNBlocks)
    for parameter in model.parameters():
        parameter.data.zero_()
    measures = model.evaluate(make_batch(model.spec, 2))
    torch.testing.assert_close(measures["bits_per_dim"], torch.ones(2))
