"""Decoding of image files into the levels of pictures of one size, by the rules of docs/datasets.md.

A file that breaks a rule is refused with its reason; what a file loses (further frames) is said.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from genlab.data.containers import RefusedImage, UnreadableImage, picture_in

FORMATS = ("PNG", "JPEG", "WEBP")
PILLOW_MAX_PIXELS = 89_478_485
"""Number of pixels above which Pillow itself warns of a decompression bomb."""

Size = int | tuple[int, int]
_WHITE = 255
_PLACE_OF_BIT_DEPTH = 24  # in a PNG file: behind the signature, and the length, type, width and height of IHDR

Result = TypeVar("Result")
Crop = Literal["center", "stretch", "none"]
_CHUNK = 1024  # files in flight at a time: bounds the memory of the decoded pictures


@dataclass(frozen=True, kw_only=True)
class PictureRules:
    """The form into which every file is decoded.

    Attributes:
        size: Height and width in pixels; one number for a square.
        crop: ``center`` takes the largest centred rectangle of the size's proportions and scales it; ``stretch``
            scales the whole image to the size; ``none`` takes only images that have the size already.
        channels: 1 is grey (ITU-R 601 luma), 3 is red, green, blue.
        background: Grey level, 0 .. 255, on which transparent images are laid.
        max_pixels: Larger images are refused by their header, before they are decoded.
    """

    size: Size
    crop: Crop
    channels: Literal[1, 3]
    background: int
    max_pixels: int

    @property
    def sides(self) -> tuple[int, int]:
        """The height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The first frame of a file as bytes in the order channels x height x width, and the number of frames."""

    levels: bytes
    num_frames: int


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Turn Pillow's warning of a decompression bomb into a refusal, and ignore its other warnings.

    Filters of warnings belong to the whole process, so this is entered once, around all threads that decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of metadata, which are not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decoded(
    names: Sequence[str], read: Callable[[str], Result], *, num_workers: int, bar: "tqdm[Any]"
) -> Iterator[tuple[str, Result | RefusedImage]]:
    """Yield the result of every file, or why it is refused, in their order, by several threads.

    Args:
        names: Of the files.
        read: Decodes one, or raises RefusedImage.
        num_workers: Threads.
        bar: Is moved by each file.
    """

    def attempt(name: str) -> Result | RefusedImage:
        try:
            return read(name)
        except RefusedImage as refusal:
            return refusal

    with bombs_refused(), ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            for pair in zip(chunk, pool.map(attempt, chunk), strict=True):
                yield pair
                bar.update()


def decode(path: Path, rules: PictureRules) -> Picture:
    """Decode one file, within `bombs_refused`.

    Raises:
        RefusedImage: With the reason.
    """
    with _opened(path, max_pixels=rules.max_pixels) as image:
        num_frames = _num_frames(image)
        scaled = _scale(_flatten(_upright(image), channels=rules.channels, background=rules.background), rules)
    return Picture(levels=_channels_first(scaled).tobytes(), num_frames=num_frames)


def decode_as_stored(path: Path) -> UInt8[np.ndarray, "C H W"]:
    """Decode one file without scaling, within `bombs_refused`: grey as one channel, all others as three.

    Raises:
        RefusedImage: With the reason.
    """
    with _opened(path, max_pixels=PILLOW_MAX_PIXELS) as image:
        if (num_frames := _num_frames(image)) > 1:
            raise RefusedImage(f"holds {num_frames} frames")
        channels: Literal[1, 3] = 1 if image.mode != "P" and len(image.getbands()) < 3 else 3
        return _channels_first(_flatten(_upright(image), channels=channels, background=_WHITE))


@contextmanager
def _opened(path: Path, *, max_pixels: int) -> Iterator[Image.Image]:
    """Open the picture in a file.

    Raises:
        RefusedImage: It cannot be opened, or it cannot be decoded in the block.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read ({error.strerror or error})") from error
    if not content:
        raise RefusedImage("is empty")
    try:
        with Image.open(io.BytesIO(picture_in(content)), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise RefusedImage(f"has {width}x{height} pixels, more than dataset.max_pixels = {max_pixels:,}")
            if image.format == "PNG":
                _settle_transparent_colour(image, bit_depth=content[_PLACE_OF_BIT_DEPTH])
            yield image
    except UnidentifiedImageError as error:
        raise RefusedImage(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise RefusedImage(f"has too many pixels (more than {PILLOW_MAX_PIXELS:,})") from error
    except (RefusedImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise RefusedImage(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _settle_transparent_colour(image: Image.Image, *, bit_depth: int) -> None:
    """Bring the transparent colour of a PNG to the 8 bits of Pillow's pixels, which Pillow leaves in those of the file.

    Raises:
        RefusedImage: Colours of 16 bits that differ from it are equal to it in 8 bits.
    """
    if "transparency" in image.info and image.mode == "RGB" and bit_depth == 16:
        raise RefusedImage("is 16-bit colour with a transparent colour, which is not supported")
    level = image.info.get("transparency")
    if image.mode == "L" and isinstance(level, int):
        image.info["transparency"] = level * {2: 85, 4: 17}.get(bit_depth, 1)
    elif image.mode == "1" and level == 1:  # of Pillow 12 and older; later ones scale it themselves
        image.info["transparency"] = 255


def _num_frames(image: Image.Image) -> int:
    # The further pictures of a JPEG are previews, depths and gains of the first one.
    return 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)


def _channels_first(image: Image.Image) -> UInt8[np.ndarray, "C H W"]:
    levels = np.asarray(image)
    return levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image by its EXIF orientation; a damaged EXIF is ignored, as in viewers."""
    image.load()
    with suppress(Exception):  # Pillow's reader of EXIF raises whatever a damaged one leads it to
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _flatten(image: Image.Image, *, channels: Literal[1, 3], background: int) -> Image.Image:
    """Convert to eight bits per channel, opaque, with the requested channels."""
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        # Straight to RGBA: Pillow then applies palettes and transparent colours of every mode.
        transparent = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(ground, transparent)
    elif image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Round 16-bit grey to the nearest of 256 levels; Pillow's own conversion clips everything above 255 to white."""
    if image.has_transparency_data:
        raise RefusedImage("is 16-bit grey with a transparent level, which is not supported")
    levels = np.asarray(image).astype(np.int64)
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))


def _scale(image: Image.Image, rules: PictureRules) -> Image.Image:
    """Scale to the size of the rules, antialiased bicubic; images of that size keep their bytes."""
    width, height = image.size
    tall, wide = rules.sides
    if rules.crop == "none" and (height, width) != (tall, wide):
        raise RefusedImage(f"has height {height} and width {width} instead of {tall} and {wide}")
    box = (0, 0, width, height)
    if rules.crop == "center":
        # Whole pixels, to the nearest; of a thin image at least one.
        box_height = max(1, min(height, (2 * width * tall + wide) // (2 * wide)))
        box_width = max(1, min(width, (2 * height * wide + tall) // (2 * tall)))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        box = (left, top, left + box_width, top + box_height)
    return image.resize((wide, tall), Image.Resampling.BICUBIC, box=box)
