"""Masks: what a kernel may use, and that what it may not use has neither effect nor gradient."""

import runpy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.nn import masked
from genlab.nn.masked import BatchNorm, MaskedConv2d, MaskType, PixelNorm, RowsAboveConv2d, group_bounds


@given(channels=st.integers(1, 40), groups=st.integers(1, 4))
def test_groups_cover_all_channels_and_differ_by_at_most_one(channels, groups):
    if channels < groups:
        with pytest.raises(ValueError, match="colour groups"):
            group_bounds(channels, groups)
        return
    bounds = group_bounds(channels, groups)
    sizes = [high - low for low, high in pairwise(bounds)]
    assert bounds[0] == 0
    assert bounds[-1] == channels
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=25)
@given(
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 5)]),
    mask_type=st.sampled_from(["A", "B"]),
    groups=st.integers(1, 3),
)
def test_cutting_masked_rows_away_changes_nothing(kernel, mask_type, groups):
    layer = MaskedConv2d(4, 6, kernel, num_groups=groups, mask_type=mask_type)
    layer.weight.data.normal_()  # masked entries too: they must not act
    x = torch.randn(2, 4, 6, 5)
    whole = F.conv2d(x, layer.weight * layer.mask, layer.bias, padding=(kernel[0] // 2, kernel[1] // 2))
    torch.testing.assert_close(layer(x), whole)


def test_cutting_saves_the_rows_below_the_centre():
    assert MaskedConv2d(1, 2, 7, num_groups=1, mask_type="A").effective_weight().shape[2] == 4
    assert MaskedConv2d(1, 2, 3, num_groups=1, mask_type="B").effective_weight().shape[2] == 2


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_masked_weights_get_no_gradient_and_never_move(mask_type):
    """The mistake of writing masks into weight.data: the optimiser's momentum still moves them between passes."""
    layer = MaskedConv2d(6, 6, 3, num_groups=3, mask_type=mask_type)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, 6, 4, 4)).square().sum().backward()
        optimizer.step()
    hidden = ~layer.mask
    assert hidden.any()
    assert not layer.weight.grad[hidden].any()
    assert torch.equal(layer.weight[hidden], before[hidden])
    assert not layer.weight[hidden].any()
    assert layer.weight.grad[layer.mask].ne(0).all()


def test_forward_leaves_the_weight_alone():
    layer = MaskedConv2d(1, 2, 3, num_groups=1, mask_type="A")
    layer.weight.data.fill_(1.0)
    layer(torch.zeros(1, 1, 3, 3))
    assert torch.equal(layer.weight, torch.ones_like(layer.weight))


@pytest.mark.parametrize(("mask_type", "seen"), [("A", [[], [0], [0, 1]]), ("B", [[0], [0, 1], [0, 1, 2]])])
def test_colour_groups_at_the_centre(mask_type, seen):
    layer = MaskedConv2d(3, 3, 3, num_groups=3, mask_type=mask_type)
    for out_channel in range(3):
        assert layer.mask[out_channel, :, 1, 1].nonzero().flatten().tolist() == seen[out_channel]
        assert layer.mask[out_channel, :, 0].all()
        assert layer.mask[out_channel, :, 1, 0].all()
        assert not layer.mask[out_channel, :, 2].any()


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd sides"):
        MaskedConv2d(1, 1, 4, num_groups=1, mask_type="A")
    with pytest.raises(ValueError, match="must be odd"):
        RowsAboveConv2d(1, 1, 4, mask_type="A")


@pytest.mark.parametrize(("mask_type", "first_hidden"), [("A", 2), ("B", 3)])
def test_a_vertical_kernel_sees_whole_rows_above(mask_type, first_hidden):
    layer = RowsAboveConv2d(1, 1, 5, mask_type=mask_type)
    x = torch.zeros(1, 1, 5, 7, requires_grad=True)
    layer(x)[0, 0, 2, 3].backward()
    seen = x.grad[0, 0].ne(0)
    assert seen[:first_hidden, 1:6].all()
    assert not seen[first_hidden:].any()
    assert not seen[:, [0, 6]].any()


def test_batch_norm_leaks_in_training_and_not_in_evaluation():
    """A later pixel changes an earlier one's features through the batch's mean: why likelihoods need eval mode."""
    norm = BatchNorm(2, num_groups=1)
    x = torch.randn(2, 2, 3, 3)
    later = x.clone()
    later[:, :, 2, 2] += 1
    assert not torch.allclose(norm(x)[:, :, 0, 0], norm(later)[:, :, 0, 0])
    norm.eval()
    assert torch.equal(norm(x)[:, :, 0, 0], norm(later)[:, :, 0, 0])


def test_pixel_norm_mixes_neither_pixels_nor_groups():
    norm = PixelNorm(5, num_groups=2)
    x = (100 * torch.randn(1, 5, 2, 2)).requires_grad_()
    y = norm(x)
    (y[0, :2, 0, 0] * torch.tensor([1.0, -2.0])).sum().backward()
    assert not x.grad[0, 2:].any()
    assert not x.grad[0, :, 1].any()
    torch.testing.assert_close(y[:, 2:].mean(1), torch.zeros(1, 2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(y[:, 2:].var(1, correction=0), torch.ones(1, 2, 2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (3, 5)])
@pytest.mark.parametrize("num_groups", [1, 3])
def test_what_is_known_of_a_mask_without_its_values_is_true(
    mask_type: MaskType, size: tuple[int, int], num_groups: int
) -> None:
    layer = MaskedConv2d(4, 7, size, num_groups=num_groups, mask_type=mask_type)
    kept = layer.mask[:, :, : size[0] // 2 + 1]
    assert layer.is_masked == (not bool(kept.all()))
    torch.manual_seed(0)
    layer = MaskedConv2d(4, 7, size, num_groups=num_groups, mask_type=mask_type)
    bound = max(int(layer.mask[-1].sum()), 1) ** -0.5
    torch.manual_seed(0)
    assert torch.equal(layer.weight, torch.empty(7, 4, *size).uniform_(-bound, bound) * layer.mask)


@pytest.mark.parametrize(("mask_type", "num_rows"), [("A", 2), ("B", 3)])
def test_weights_of_the_vertical_stack_begin_within_the_bound_of_what_they_see(mask_type: MaskType, num_rows: int):
    bound = (20 * num_rows * 5) ** -0.5
    layer = RowsAboveConv2d(20, 10, 5, mask_type=mask_type)
    for parameter in layer.parameters():
        assert 0.5 * bound < parameter.abs().max() <= bound
    assert layer.weight.abs().max() > 0.99 * bound


def test_other_types_of_masks_and_other_channels_are_refused():
    plain = runpy.run_path(masked.__file__)  # without the checks of types that the tests add
    with pytest.raises(ValueError, match="mask_type must be A or B, got a"):
        plain["MaskedConv2d"](1, 1, 3, num_groups=1, mask_type="a")
    with pytest.raises(ValueError, match="mask_type must be A or B, got b"):
        plain["RowsAboveConv2d"](1, 1, 3, mask_type="b")
    with pytest.raises(RuntimeError, match="split"):
        plain["PixelNorm"](6, num_groups=3)(torch.zeros(1, 8, 2, 2))
