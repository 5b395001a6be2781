"""From an image file of any kind to the levels of a picture of one size, by rules that docs/datasets.md states.

A file that breaks a rule is refused with its reason; what a file loses (further frames) is said.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from genlab.data.containers import RefusedImage, picture_in

FORMATS = ("PNG", "JPEG", "WEBP")
PILLOW_MAX_PIXELS = 89_478_485
"""Above this Pillow itself warns of a decompression bomb."""

Size = int | tuple[int, int]
Crop = Literal["center", "stretch", "none"]
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded file: channels x height x width bytes in that order, and the number of frames; it is the first one."""

    levels: bytes
    num_frames: int


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Turn Pillow's warning of a decompression bomb into a refusal, and leave its other warnings out.

    Filters of warnings belong to the whole process, so this is entered once, around all threads that decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of metadata, which are not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(path: Path, rules: PictureRules) -> Picture:
    """Decode one file, within `bombs_refused`.

    Raises:
        RefusedImage: With the reason.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RefusedImage(f"cannot be read ({error.strerror or error})") from error
    if not content:
        raise RefusedImage("is empty")
    try:
        with Image.open(io.BytesIO(picture_in(content)), formats=FORMATS) as image:
            width, height = image.size
            if width * height > rules.max_pixels:
                raise RefusedImage(f"has {width}x{height} pixels, more than dataset.max_pixels = {rules.max_pixels:,}")
            # The further pictures of a JPEG are previews, depths and gains of the first one.
            num_frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
            scaled = _scale(_flatten(_upright(image), rules), rules)
    except UnidentifiedImageError as error:
        raise RefusedImage(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise RefusedImage(f"has too many pixels (more than {PILLOW_MAX_PIXELS:,})") from error
    except RefusedImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise RefusedImage(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error
    levels = np.asarray(scaled)
    if rules.channels == 3:
        levels = levels.transpose(2, 0, 1)
    return Picture(levels=levels.tobytes(), num_frames=num_frames)


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF says, and take it as it lies where that is damaged, as viewers do."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's reader of EXIF raises whatever a damaged one leads it to
        orientation = None
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _flatten(image: Image.Image, rules: PictureRules) -> Image.Image:
    """Eight bits per channel, opaque, with the channels asked for."""
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        # Straight to RGBA: Pillow then applies palettes and transparent colours of every mode.
        transparent = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (rules.background,) * 3 + (255,))
        image = Image.alpha_composite(background, transparent)
    elif image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    return image.convert("L" if rules.channels == 1 else "RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to the nearest of 256 levels; Pillow's own conversion clips everything above 255 to white."""
    if image.has_transparency_data:
        raise RefusedImage("is 16-bit grey with a transparent level, for which there is no rule")
    levels = np.asarray(image).astype(np.int64)
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))


def _scale(image: Image.Image, rules: PictureRules) -> Image.Image:
    """To the size of the rules, antialiased bicubic; images that have the size already keep their bytes."""
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
