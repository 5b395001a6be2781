"""Windows are drawn at the right place, to the pixel."""

import torch

from genlab.models.draw.attention import Window
from genlab.models.draw.windows import GREEN, RED, enlarge, enlargement, outline_window


def window(*, x: float, y: float, stride: float, variance: float) -> Window:
    return Window(*(torch.tensor([value]) for value in (x, y, stride, variance, 1.0)))


def test_enlarging_repeats_pixels_and_reaches_the_least_side() -> None:
    assert enlargement(28, 28) == 4
    assert enlargement(8, 8) == 14
    assert enlargement(300, 200) == 1
    images = torch.rand(2, 1, 28, 20)
    large = enlarge(images)
    assert large.shape == (2, 3, 112, 80)
    assert torch.equal(large[:, 1, 2::4, 1::4], images[:, 0])
    colour = torch.rand(1, 3, 60, 60)
    assert torch.equal(enlarge(colour)[..., ::2, ::2], colour)
    assert torch.allclose(enlarge(torch.ones(1, 2, 112, 112)), torch.ones(1))


def test_the_square_runs_through_the_outermost_filters() -> None:
    """Filters at pixels 10 and 18 (centre 14, stride 4, N = 3): lines at (10 - 0.5) 4 = 38 and (18 - 0.5) 4 = 70."""
    black = torch.zeros(1, 3, 112, 112)
    drawn = outline_window(black, window(x=14, y=14, stride=4, variance=0.25), num_filters=3, factor=4, color=RED)
    row = drawn[0, :, 54]  # through the middle of the square: only its two vertical lines
    assert torch.allclose(row[:, 37:39], torch.tensor(RED)[:, None].expand(3, 2))
    assert torch.allclose(row[:, 69:71], torch.tensor(RED)[:, None].expand(3, 2))
    assert row[:, 40:68].sum() == 0
    assert row[:, :36].sum() == 0
    assert torch.equal(drawn.transpose(2, 3), drawn)


def test_a_window_moves_with_its_centre_and_thickens_with_sigma() -> None:
    black = torch.zeros(1, 3, 112, 112)

    def draw(x: float, y: float, variance: float) -> torch.Tensor:
        w = window(x=x, y=y, stride=2, variance=variance)
        return outline_window(black, w, num_filters=5, factor=4, color=GREEN)

    assert torch.equal(draw(14, 10, 0.1).roll(4, 3), draw(15, 10, 0.1))
    assert torch.equal(draw(14, 10, 0.1).roll(4, 2), draw(14, 11, 0.1))
    assert draw(14, 14, 1.0).sum() > 1.5 * draw(14, 14, 0.1).sum()


def test_what_lies_outside_is_cut_off_and_the_picture_is_left_alone() -> None:
    picture = torch.rand(1, 3, 112, 112)
    before = picture.clone()
    outside = outline_window(picture, window(x=-90, y=300, stride=1, variance=1), num_filters=5, factor=4, color=RED)
    assert torch.equal(outside, before)
    partly = outline_window(picture, window(x=0, y=0, stride=5, variance=1), num_filters=5, factor=4, color=RED)
    assert not torch.equal(partly, before)
    assert torch.equal(picture, before)
    assert partly.min() >= 0
    assert partly.max() <= 1
