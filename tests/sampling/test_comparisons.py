import torch

from genlab.sampling.comparisons import beside, with_neighbours

SIDE, PADDING = 56, 2
CELL = SIDE + PADDING


def cell(picture: torch.Tensor, row: int, column: int) -> float:
    """The level in the middle of one image of the picture."""
    return picture[0, PADDING + row * CELL + SIDE // 2, PADDING + column * CELL + SIDE // 2].item()


def test_real_on_the_left_and_generated_on_the_right() -> None:
    picture = beside(torch.zeros(20, 1, SIDE, SIDE), torch.ones(24, 1, SIDE, SIDE))
    assert picture.shape == (1, 2 * CELL + PADDING, 17 * CELL + PADDING)  # 20 images fill two rows of eight
    assert [cell(picture, 1, column) for column in (0, 7, 8, 9, 16)] == [0, 0, 0.5, 1, 1]


def test_each_image_is_followed_by_its_own_neighbours() -> None:
    images = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 1, SIDE, SIDE)
    by_pixels = (images.unsqueeze(1) / 2).expand(2, 3, 1, SIDE, SIDE)
    by_features = (images.unsqueeze(1) / 3).expand(2, 2, 1, SIDE, SIDE)
    picture = with_neighbours(images, [by_pixels, by_features])
    levels = [round(cell(picture, 1, column), 4) for column in range(8)]
    assert levels == [0.9, 0.5, 0.45, 0.45, 0.45, 0.5, 0.3, 0.3]
