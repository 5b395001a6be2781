import logging
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from genlab.sampling.pictures import (
    MAX_FILM_SIDE,
    MAX_FRAMES,
    captioned,
    grid,
    save_film,
    save_picture,
    save_training_film,
    strip,
)


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


def write_grids(folder: Path, levels: list[int], *, size: tuple[int, int] = (30, 20), mode: str = "L") -> None:
    for step, level in enumerate(levels):
        Image.new("L", size, level).convert(mode).save(folder / f"step_{100 * step:08d}.png")


def levels_of(film: Path) -> list[int]:
    with Image.open(film) as image:
        levels = []
        for frame in range(image.n_frames):
            image.seek(frame)
            levels.append(image.convert("L").getpixel((3, 3)))
        return levels


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_film_of_training_shows_the_grids_in_order(tmp_path: Path, mode: str) -> None:
    write_grids(tmp_path, [0, 200, 100, 50], mode=mode)
    film = save_training_film(tmp_path)
    assert film == tmp_path / "training.gif"
    assert levels_of(film) == [0, 200, 100, 50]
    with Image.open(film) as image:
        assert image.info["loop"] == 0
        image.seek(3)
        assert image.info["duration"] > 1000


@pytest.mark.parametrize("num_grids", [MAX_FRAMES, MAX_FRAMES + 1, 100, 250])
def test_a_long_training_gives_evenly_chosen_frames(tmp_path: Path, num_grids: int) -> None:
    write_grids(tmp_path, list(range(num_grids)))
    levels = levels_of(save_training_film(tmp_path))
    assert len(levels) == MAX_FRAMES
    assert (levels[0], levels[-1]) == (0, num_grids - 1)
    gaps = {after - before for before, after in pairwise(levels)}
    assert max(gaps) - min(gaps) <= 1
    assert min(gaps) >= 1


def test_the_film_of_training_carries_a_curve_as_far_as_its_step(tmp_path: Path) -> None:
    write_grids(tmp_path, [0, 50, 100, 150], size=(400, 20))
    with Image.open(save_training_film(tmp_path, curve={100: 8.0, 200: 2.0, 300: 1.0}, name="distance")) as image:
        assert image.size == (400, 76)
        bright = []
        for frame in range(image.n_frames):
            image.seek(frame)
            curve = torch.tensor(list(image.convert("L").crop((0, 36, 400, 76)).tobytes())).view(40, 400)
            assert curve.max(0).values[5:395].min() >= 80  # the whole curve in every frame
            bright.append(int((curve > 200).any(0).nonzero().max()) if curve.max() > 200 else 0)
        assert bright[0] == 0
        assert bright[1] < 10  # the dot of the first value
        assert bright[2] == pytest.approx(200, abs=5)
        assert bright[3] > 390
        assert (curve[:, 5] > 200).nonzero().min() < (curve[:, 390] > 200).nonzero().min()  # falls
    with Image.open(save_training_film(tmp_path, curve={100: 8.0})) as image:
        assert image.size == (400, 20)


def test_the_text_of_a_frame_names_the_measure_also_after_a_grid_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, place, text, **_: texts.append(text))
    write_grids(tmp_path, [0, 1, 2])
    Image.new("L", (50, 50)).save(tmp_path / "step_00000100.png")
    save_training_film(tmp_path, curve={100: 8.0, 200: 2.5}, name="nll_nats")
    assert texts == ["step 0", "step 200: nll_nats = 2.5"]


def test_a_caption_widens_a_narrow_picture() -> None:
    picture = captioned(torch.full((1, 20, 30), 0.2), "step 100: a distance of 0.5")
    assert picture.shape[1] == 36
    assert picture.shape[2] > 100
    assert (picture[0, :20, :30] == 0.2).all()
    assert (picture[0, 20:, 60:] > 0.5).any()


def test_large_grids_are_scaled_down(tmp_path: Path) -> None:
    write_grids(tmp_path, [1, 2], size=(4 * MAX_FILM_SIDE, 2 * MAX_FILM_SIDE))
    with Image.open(save_training_film(tmp_path)) as image:
        assert image.size == (MAX_FILM_SIDE, MAX_FILM_SIDE // 2)


def test_bad_pictures_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_grids(tmp_path, [0, 50, 100, 150, 200, 250])
    whole = (tmp_path / "step_00000100.png").read_bytes()
    (tmp_path / "step_00000100.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "step_00000200.png").write_bytes(b"")
    (tmp_path / "step_00000300.png").write_bytes(whole[:-30] + b"damaged" + whole[-23:])
    Image.new("L", (31, 20), 7).save(tmp_path / "step_00000400.png")
    (tmp_path / "step_00000600.png").mkdir()
    with caplog.at_level(logging.WARNING):
        assert levels_of(save_training_film(tmp_path)) == [0, 250]
    told = [record.getMessage().split(" is left out")[0] for record in caplog.records]
    assert sorted(told) == [str(tmp_path / f"step_{step:08d}.png") for step in (100, 200, 300, 400, 600)]


def test_one_grid_makes_no_film(tmp_path: Path) -> None:
    assert save_training_film(tmp_path / "missing") is None
    write_grids(tmp_path, [5])
    assert save_training_film(tmp_path) is None
    (tmp_path / "step_00000100.png").write_bytes(b"no picture")
    assert save_training_film(tmp_path) is None
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step_00000000.png", "step_00000100.png"]
