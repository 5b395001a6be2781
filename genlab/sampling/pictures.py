"""Pictures on disk: grids as PNG, films as GIF."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from genlab.functional import to_bytes
from genlab.printing import printable
from genlab.storage import opened_within, replace_atomically

# Frames of 120 ms are slow enough to follow a window and fast enough to see a stroke; the last one stays.
FRAME_MILLISECONDS = 120
LAST_FRAME_MILLISECONDS = 1500
SMALLEST_SIDE = 56
_CAPTION_HEIGHT = 16
ROWS_OF_A_STRIP = 4
# Of the film of a training run: some megabytes at most, and seconds to write and to watch.
MAX_FRAMES = 40
MAX_FILM_SIDE = 640
_CURVE_SIZE = (300, 56)  # at least so wide

_log = logging.getLogger(__name__)


def grid(
    images: Float[Tensor, "N C H W"], *, num_columns: int | None = None, padding: int = 2
) -> Float[Tensor, "C h w"]:
    """Arrange images in a nearly square grid; small ones are enlarged by pixel repetition.

    Args:
        images: In [0, 1]; N may not fill the last row.
        num_columns: Images in a row; the ceiling of the square root of N when None.
        padding: Pixels of mid grey between images.
    """
    factor = max(1, math.ceil(SMALLEST_SIDE / max(images.shape[-2:])))
    images = images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    num_images, channels, height, width = images.shape
    columns = num_columns or math.ceil(math.sqrt(num_images))
    rows = math.ceil(num_images / columns)
    sheet = images.new_full((channels, rows * (height + padding) + padding, columns * (width + padding) + padding), 0.5)
    for index, image in enumerate(images):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def captioned(picture: Float[Tensor, "C h w"], caption: str) -> Float[Tensor, "C H W"]:
    """Write a line of text below a picture, which gets a right margin if the text is wider."""
    width = max(picture.shape[2], math.ceil(ImageFont.load_default().getlength(caption)) + 4)
    line = Image.new("L", (width, _CAPTION_HEIGHT))
    ImageDraw.Draw(line).text((2, 2), caption, fill=255)
    written = torch.tensor(list(line.tobytes()), dtype=picture.dtype).view(1, line.height, line.width) / 255
    whole = F.pad(picture.cpu(), (0, width - picture.shape[2]), value=0.5)
    return torch.cat((whole, written.expand(len(picture), -1, -1)), 1)


def strip(film: Float[Tensor, "T N C H W"], *, num_rows: int) -> Float[Tensor, "C h w"]:
    """Return a film as a picture: time from left to right, one row for each of the first images."""
    frames = film[:, :num_rows].transpose(0, 1)  # (N, T, C, H, W)
    return grid(frames.flatten(0, 1), num_columns=film.shape[0])


def save_picture(picture: Float[Tensor, "C H W"], path: Path, *, description: str = "") -> None:
    """Write a PNG, with a text under the keyword of the standard."""
    text = PngInfo()
    if description:
        text.add_text("Description", description)
    _save(to_pillow(picture), path, "PNG", pnginfo=text)


def save_film(film: Float[Tensor, "T N C H W"], path: Path) -> None:
    """Write a GIF of the grid of N images over T frames that repeats for ever."""
    _save_frames([to_pillow(grid(images)) for images in film], path)


def save_training_film(
    folder: Path, *, curve: Mapping[int, float] = MappingProxyType({}), name: str = ""
) -> Path | None:
    """Make ``training.gif`` of the grids ``step_*.png`` that training left in a folder.

    At most MAX_FRAMES grids are taken, evenly spaced from the first to the last, and scaled down to MAX_FILM_SIDE
    pixels. A file that is no whole picture, or of another size than the last (it shows another number of images), is
    left out with a warning.

    Args:
        folder: Of the grids.
        curve: Values of a measure by step, drawn under the grids; not drawn where there are not two.
        name: Of the measure.

    Returns:
        The film; None where there are not two grids to make it of.
    """
    paths = sorted(path for path in folder.glob("step_*.png") if path.stem[5:].isdecimal())
    count = min(MAX_FRAMES, len(paths))
    chosen = [paths[round(index * (len(paths) - 1) / max(count - 1, 1))] for index in range(count)]
    grids = [(path, *read) for path in chosen if (read := _read_grid(path)) is not None]
    frames = []
    for path, size, picture in grids:
        if size != grids[-1][1]:
            where = printable(str(path))
            _log.warning("%s is left out of the film of training: it has another size than the last grid", where)
            continue
        frames.append(_above_curve(picture, curve, step=int(path.stem[5:]), name=name) if len(curve) > 1 else picture)
    if len(frames) < 2:
        return None
    _save_frames(frames, folder / "training.gif")
    return folder / "training.gif"


def sheet(picture: Float[Tensor, "..."], *, group: int = 1) -> Float[Tensor, "C h w"]:
    """Return one picture of a grid of images (N, C, H, W), or of the first rows of a film (T, N, C, H, W).

    Args:
        picture: In [0, 1].
        group: So many images of a grid, one after another, stay in one row.
    """
    if picture.dim() == 5:
        return strip(picture, num_rows=ROWS_OF_A_STRIP)
    columns = group * math.ceil(math.sqrt(len(picture)) / group)
    return grid(picture, num_columns=min(columns, len(picture)))  # a group may be incomplete, as an arc of few samples


def save_pictures(
    pictures: Mapping[str, Tensor],
    folder: Path,
    *,
    groups: Mapping[str, int],
    names: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the pictures of a model's ``visualize``: grids as PNG, films as GIF and as a strip in PNG.

    Args:
        pictures: By name, (N, C, H, W) or (T, N, C, H, W), in [0, 1].
        folder: Destination; created if it is missing.
        groups: The model's ``picture_groups``.
        names: File names, without suffix, that differ from the pictures' own.

    Returns:
        The files, in the order of the pictures.
    """
    paths = []
    for name, picture in pictures.items():
        stem = folder / (names or {}).get(name, name)
        if picture.dim() == 5:
            save_film(picture, stem.with_suffix(".gif"))
            paths.append(stem.with_suffix(".gif"))
        save_picture(sheet(picture, group=groups.get(name, 1)), stem.with_suffix(".png"))
        paths.append(stem.with_suffix(".png"))
    return paths


def to_pillow(picture: Float[Tensor, "C H W"]) -> Image.Image:
    """Convert values in [0, 1] to 8 bits, grey or RGB."""
    levels = to_bytes(picture.detach()).cpu()
    return Image.fromarray(levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).contiguous().numpy())


def _read_grid(path: Path) -> tuple[tuple[int, int], Image.Image] | None:
    """Return the size of a whole picture, and the picture in grey or RGB as the film shows it.

    Returns:
        None, with a warning, where the file holds no picture.
    """
    try:
        with (
            opened_within(path.parent, path.name) as file,
            Image.open(file, formats=("PNG",)) as picture,
        ):
            size = picture.size
            frame = picture.convert("L" if picture.mode == "L" else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # errors of Pillow for bad files
        _log.warning("%s is left out of the film of training: %s", printable(str(path)), error)
        return None
    frame.thumbnail((MAX_FILM_SIDE, MAX_FILM_SIDE))
    return size, frame


def _above_curve(frame: Image.Image, curve: Mapping[int, float], *, step: int, name: str) -> Image.Image:
    """Return a frame above the curve of a measure, which is bright up to the step, with its value as text."""
    width, height = max(frame.width, _CURVE_SIZE[0]), _CURVE_SIZE[1]
    drawn = Image.new("L", (width, height))
    pen = ImageDraw.Draw(drawn)
    steps = sorted(curve)
    # Logarithms, for a distance falls by orders of magnitude.
    scale = math.log if min(curve.values()) > 0 else float
    heights = [scale(curve[each]) for each in steps]
    low, high = min(heights), max(heights)
    points = [
        (
            3 + (width - 7) * (each - steps[0]) / (steps[-1] - steps[0]),
            height - 4 - (height - _CAPTION_HEIGHT - 8) * (value - low) / ((high - low) or 1),
        )
        for each, value in zip(steps, heights, strict=True)
    ]
    until = [each for each in steps if each <= step]
    pen.line(points, fill=90)
    text = f"step {step}"
    if until:
        pen.line(points[: len(until)], fill=255, width=2)
        pen.circle(points[len(until) - 1], 2, fill=255)
        text += f": {name} = {curve[until[-1]]:.4g}"  # a space of this font is two pixels wide
    pen.text((3, 2), text, fill=255)
    whole = Image.new(frame.mode, (width, frame.height + height))
    whole.paste(frame)
    whole.paste(drawn.convert(frame.mode), (0, frame.height))
    return whole


def _save_frames(frames: Sequence[Image.Image], path: Path) -> None:
    """Write a GIF that repeats for ever and holds its last frame."""
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    first, *rest = [frame.quantize(128) if frame.mode == "RGB" else frame for frame in frames]
    _save(first, path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)


def _save(image: Image.Image, path: Path, kind: str, **options: Any) -> None:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, buffer.getvalue())
