"""Files of cameras and programs: more than a picture in them is passed over, less than a picture is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genlab.data.containers import RefusedImage, picture_in
from genlab.data.decoding import PictureRules, bombs_refused, decode
from tests.data.sources import png_chunk

RULES = PictureRules(size=48, crop="none", channels=3, background=255, max_pixels=1_000_000)
FILM = struct.pack(">I4s4s", 24, b"ftyp", b"mp42") + bytes(12) + np.random.default_rng(1).bytes(4000)
JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 1},
    "thumbnail": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0" + b"\xff\xd8\xff\xda\xff\xd9"},
    "grey": {},
    "cmyk": {},
}


def _photograph(seed: int = 0) -> Image.Image:
    """Smooth, with some noise, so that JPEG neither fails to compress it nor makes a constant of it."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48] / 48
    levels = np.stack([x, y, x * y], 2) * 200 + random.normal(0, 12, (48, 48, 3)) + 20
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def _jpeg(kind: str, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
    _photograph(seed).convert(mode).save(buffer, "JPEG", quality=90, **JPEGS[kind])
    return buffer.getvalue()


def _mpo() -> bytes:
    buffer = io.BytesIO()
    _photograph().save(buffer, "MPO", save_all=True, append_images=[_photograph(1)], quality=90)
    return buffer.getvalue()


def _png(*, chunks: bytes = b"", **options) -> bytes:
    buffer = io.BytesIO()
    _photograph().save(buffer, "PNG", **options)
    content = buffer.getvalue()
    return content[:33] + chunks + content[33:]  # behind the header


def _decoded(tmp_path, content: bytes) -> np.ndarray:
    path = tmp_path / "file"
    path.write_bytes(content)
    with bombs_refused():
        picture = decode(path, RULES)
    assert picture.num_frames == 1
    return np.frombuffer(picture.levels, np.uint8).reshape(3, 48, 48)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("tail", [FILM, b"\0" * 100, b"\xff\xd9", b"SEFT", _jpeg("baseline", 7)])
def test_what_follows_a_jpeg_is_passed_over(tmp_path, kind, tail):
    whole = _jpeg(kind)
    assert picture_in(whole + tail) == whole
    assert np.array_equal(_decoded(tmp_path, whole + tail), _decoded(tmp_path, whole))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_cut_jpeg_is_refused_whatever_follows(kind):
    """Cut within its data; behind it nothing, a film, or another picture."""
    whole = _jpeg(kind)
    random = np.random.default_rng(0)
    data = whole.rindex(b"\xff\xda") + 20
    for cut in (*random.integers(data, len(whole) - 64, 25).tolist(), len(whole) - 2):
        for tail in (b"", bytes(100), FILM, _jpeg("baseline", 7)):
            with bombs_refused(), pytest.raises(RefusedImage, match="is truncated"):
                picture_in(whole[:cut] + tail)


def test_of_two_pictures_in_a_file_the_first_is_taken(tmp_path):
    first = _decoded(tmp_path, _jpeg("baseline"))
    assert np.abs(_decoded(tmp_path, _mpo()).astype(int) - first).max() <= 3  # another quantisation at most
    assert np.array_equal(_decoded(tmp_path, _mpo()), _decoded(tmp_path, _mpo() + FILM))
    boundary = _mpo().rindex(b"\xff\xd8\xff")
    with pytest.raises(RefusedImage, match="is truncated"):
        _decoded(tmp_path, _mpo()[: boundary - 50] + _mpo()[boundary:])


@pytest.mark.parametrize("keyword", ["comment", "XML:com.adobe.xmp", "Raw profile type exif"])
@pytest.mark.parametrize("form", ["tEXt", "zTXt", "iTXt", "compressed iTXt", "many"])
def test_any_amount_of_text_in_a_png_loads(tmp_path, keyword, form):
    info = PngInfo()
    large = "x" * 3_000_000
    if form == "many":
        for _ in range(70):
            info.add_text(keyword, "x" * 1_000_000, zip=True)
    elif "iTXt" in form:
        info.add_itxt(keyword, large, zip=form.startswith("compressed"))
    else:
        info.add_text(keyword, large, zip=form == "zTXt")
    assert np.array_equal(_decoded(tmp_path, _png(pnginfo=info)), np.asarray(_photograph()).transpose(2, 0, 1))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(5_000_000))),
        png_chunk(b"iCCP", b"no end"),
        png_chunk(b"pHYs", b"short"),
        png_chunk(b"cHRM", b""),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0not zlib"),
        png_chunk(b"prIV", bytes(3_000_000)),
    ],
    ids=["large profile", "malformed profile", "pHYs", "cHRM", "text", "private"],
)
def test_metadata_that_pillow_refuses_are_passed_over(tmp_path, chunk):
    assert np.array_equal(_decoded(tmp_path, _png(chunks=chunk)), np.asarray(_photograph()).transpose(2, 0, 1))


def test_texts_that_tell_the_orientation_are_kept(tmp_path):
    turned = np.asarray(_photograph().transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1)
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    assert np.array_equal(_decoded(tmp_path, _png(pnginfo=info)), turned)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(_decoded(tmp_path, _png(exif=exif)), turned)
    profile = exif.tobytes()
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(profile):8}\n{profile.hex()}\n", zip=True)
    assert np.array_equal(_decoded(tmp_path, _png(pnginfo=info)), turned)


def test_a_damaged_exif_leaves_the_picture_as_it_lies(tmp_path):
    whole = _decoded(tmp_path, _jpeg("baseline"))
    buffer = io.BytesIO()
    damaged = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\x01\x12\0\x63" + b"\xff" * 20
    _photograph().save(buffer, "JPEG", quality=90, exif=damaged)
    assert np.array_equal(_decoded(tmp_path, buffer.getvalue()), whole)


def test_every_flipped_byte_of_a_png_is_called_a_bad_checksum_or_a_cut(tmp_path):
    content = _png()
    chunk = content.index(b"IDAT")
    for place in (16, chunk + 20, len(content) - 20):  # in the header, in the data and in a checksum
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(RefusedImage, match=r"has a bad checksum \(in its chunk I"):
            _decoded(tmp_path, bytes(damaged))
    for cut in range(9, len(content), len(content) // 50):
        with pytest.raises(RefusedImage, match="is truncated"):
            _decoded(tmp_path, content[:cut])
    assert np.array_equal(_decoded(tmp_path, content + FILM), _decoded(tmp_path, content))


def test_a_webp_is_read_to_the_end_that_it_states(tmp_path):
    buffer = io.BytesIO()
    _photograph().save(buffer, "WEBP", lossless=True)
    content = buffer.getvalue()
    assert np.array_equal(_decoded(tmp_path, content + FILM), np.asarray(_photograph()).transpose(2, 0, 1))
    with pytest.raises(RefusedImage, match="is truncated"):
        _decoded(tmp_path, content[:-4])
