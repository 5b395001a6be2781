from pathlib import Path

import torch
from PIL import Image

from genlab.sampling.pictures import grid, save_film, save_picture, strip


def test_grid_places_each_image_in_reading_order() -> None:
    images = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 1, 60, 60) / 10.0
    sheet = grid(images, padding=2)
    assert sheet.shape == (1, 2 * 62 + 2, 3 * 62 + 2)
    for index in range(5):
        row, column = divmod(index, 3)
        assert torch.equal(sheet[0, 2 + row * 62 : 62 + row * 62, 2 + column * 62 : 62 + column * 62], images[index, 0])
    assert (sheet[0, 64:, 2 + 2 * 62 :] == 0.5).all()  # the place that stays empty


def test_small_images_are_enlarged_by_repetition() -> None:
    sheet = grid(torch.eye(8).view(1, 1, 8, 8), padding=0)
    assert sheet.shape == (1, 56, 56)
    assert torch.equal(sheet[0, ::7, ::7], torch.eye(8))


def test_strip_runs_time_from_left_to_right() -> None:
    film = torch.rand(4, 3, 1, 56, 56)
    sheet = strip(film, num_rows=2)
    assert sheet.shape == (1, 2 * 58 + 2, 4 * 58 + 2)
    assert torch.equal(sheet[0, 60:116, 2 + 58 * 3 : 58 * 4], film[3, 1, 0])


def test_png_keeps_grey_levels_and_colour(tmp_path: Path) -> None:
    for channels, mode in ((1, "L"), (3, "RGB")):
        levels = torch.randint(0, 256, (channels, 5, 7))
        save_picture(levels / 255.0, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            assert image.mode == mode
            assert image.size == (7, 5)
            assert list(image.tobytes()) == levels.permute(1, 2, 0).flatten().tolist()


def test_gif_has_every_frame_and_holds_the_last(tmp_path: Path) -> None:
    film = torch.linspace(0, 1, 6).view(6, 1, 1, 1, 1).expand(6, 4, 1, 60, 60)
    save_film(film, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 6
        assert image.info["loop"] == 0
        image.seek(5)
        assert image.info["duration"] > 1000
        assert image.convert("L").getpixel((10, 10)) > 250
