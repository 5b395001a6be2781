"""Folders of images: every rule for odd files, every refusal with its reason, a cache that notices changes."""

import contextlib
import io
import logging
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from genlab.data.containers import RefusedImage
from genlab.data.dataset import SPLITS
from genlab.data.decoding import PictureRules, bombs_refused, decode, decode_as_stored, decoded
from genlab.data.folder import folder
from genlab.errors import ConfigurationError, DataError
from tests.data.sources import CPU, png, png_chunk

RULES = PictureRules(size=8, crop="center", channels=3, background=255, max_pixels=1_000_000)
GRADIENT = np.linspace(0, 65535, 64).reshape(8, 8)


def _settings(tmp_path, **changes):
    defaults = {
        "root": str(tmp_path / "images"),
        "size": 8,
        "crop": "center",
        "channels": 3,
        "background": 255,
        "max_pixels": 1_000_000,
        "labels": "auto",
        "splits": "auto",
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "split_seed": 0,
        "on_error": "fail",
        "max_skipped": 10,
        "cache": str(tmp_path / "cache"),
        "num_workers": 2,
        "binarization": "none",
        "threshold": 0.5,
        "classes": None,
        "num_labels_per_class": None,
        "label_seed": 0,
    }
    return defaults | changes


def _save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def _noise(seed=0, size=(8, 8)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def _levels(path, **changes):
    rules = PictureRules(**({**RULES.__dict__} | changes))
    with bombs_refused():
        picture = decode(path, rules)
    return np.frombuffer(picture.levels, np.uint8).reshape(rules.channels, *rules.sides).astype(int)


def _bomb(side: int) -> bytes:
    """A one-bit PNG of a few kilobytes that would decode to side x side pixels."""
    return png(side, side, bits=1, colour=0, rows=bytes((side // 8 + 1) * min(side, 64)))


def test_images_of_the_right_size_keep_their_bytes(tmp_path):
    image = _noise()
    path = _save(tmp_path / "a.png", image)
    assert np.array_equal(_levels(path), np.asarray(image).transpose(2, 0, 1))
    assert np.array_equal(_levels(path, channels=1)[0], np.asarray(image.convert("L")))
    assert np.array_equal(_levels(path, max_pixels=64), _levels(path)), "the limit itself is allowed"


@pytest.mark.parametrize("bits", ["grey", "colour"])
def test_sixteen_bits_become_the_nearest_eight(tmp_path, bits):
    values = GRADIENT.astype(np.uint16)
    path = tmp_path / "a.png"
    if bits == "grey":
        Image.fromarray(values).save(path)
    else:
        rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in values)
        path.write_bytes(png(8, 8, bits=16, colour=2, rows=rows))
    difference = np.abs(_levels(path)[0] - values / 257)
    assert difference.max() <= (0.5 if bits == "grey" else 1.0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4, :4] = 200  # top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(_levels(path), upright.transpose(2, 0, 1))


def test_a_damaged_note_of_the_orientation_is_ignored(tmp_path):
    path = _save(tmp_path / "a.png", _noise(), exif=b"Exif\0\0no such notes")
    assert np.array_equal(_levels(path), np.asarray(_noise()).transpose(2, 0, 1))


def test_transparency_is_laid_on_the_background(tmp_path):
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., 0] = 200
    image[:, 4:, 3] = 255  # the right half is opaque red, the left transparent
    path = _save(tmp_path / "a.png", Image.fromarray(image))
    for background in (0, 255):
        levels = _levels(path, background=background)
        assert (levels[:, :, :4] == background).all()
        assert levels[:, 0, 7].tolist() == [200, 0, 0]
    image[..., 3] = 51
    path = _save(tmp_path / "b.png", Image.fromarray(image))
    assert np.abs(_levels(path)[:, 0, 0] - np.array([0.2 * 200 + 0.8 * 255, 204, 204])).max() <= 1


def test_palettes_transparent_colours_and_single_bits(tmp_path):
    palette = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = _levels(_save(tmp_path / "a.png", palette))
    assert opaque[:, 0, :3].T.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    holes = _levels(_save(tmp_path / "b.png", palette, transparency=1), background=7)
    assert holes[:, 0, :3].T.tolist() == [[255, 0, 0], [7, 7, 7], [0, 0, 255]]
    grey = Image.fromarray(np.full((8, 8), 9, np.uint8))
    assert (_levels(_save(tmp_path / "c.png", grey, transparency=9), background=7) == 7).all()
    bits = Image.fromarray(np.eye(8, dtype=bool))
    assert np.array_equal(_levels(_save(tmp_path / "d.png", bits))[0], 255 * np.eye(8, dtype=int))


@pytest.mark.parametrize(("depth", "scale"), [(1, 255), (2, 85), (4, 17), (8, 1)])
def test_a_transparent_level_of_a_grey_png_of_few_bits(tmp_path, depth, scale):
    """Pillow scales the pixels to 8 bits and not the level."""
    levels = np.arange(64).reshape(8, 8) % min(2**depth, 200)
    packed = np.packbits((levels[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1).tobytes()
    rows = [b"\0" + packed[start : start + depth] for start in range(0, 8 * depth, depth)]
    one_level = png_chunk(b"tRNS", struct.pack(">H", 1))
    content = png(8, 8, bits=depth, colour=0, rows=b"".join(rows), extra=one_level)
    (tmp_path / "a.png").write_bytes(content)
    expected = np.where(levels == 1, 7, levels * scale)
    assert np.array_equal(_levels(tmp_path / "a.png", background=7)[0], expected)


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path):
    """Pillow compares all 16 bits of it with the high bytes of the pixels."""
    rows = b"".join(b"\0" + b"\x12\x80" * 24 for _ in range(8))
    for extra, expected in ((b"", 0x12), (png_chunk(b"tRNS", b"\x12\x80" * 3), None)):
        (tmp_path / "a.png").write_bytes(png(8, 8, bits=16, colour=2, rows=rows, extra=extra))
        if expected is None:
            with pytest.raises(RefusedImage, match="16-bit colour with a transparent colour, which is not supported"):
                _levels(tmp_path / "a.png", background=7)
        else:
            assert (_levels(tmp_path / "a.png", background=7) == expected).all()


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch):
    for index in range(3):
        _save(tmp_path / "images" / f"{index}.png", Image.new("RGB", (8, 8), (index,) * 3))
    read = Path.read_bytes

    def refused(path):
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied"):
            folder(**_settings(tmp_path))
    assert sum(folder(**_settings(tmp_path)).num_images(split) for split in SPLITS) == 3


def test_a_skipped_file_shifts_neither_classes_nor_splits(tmp_path):
    """The colour tells both; the file that cannot be used comes before all others of its folder."""
    for split_level, split in ((0, "train"), (100, "test")):
        for label, name in enumerate("ab"):
            place = tmp_path / "images" / split / name
            for index in (1, 2):
                _save(place / f"{index}.png", Image.new("RGB", (8, 8), (label, split_level, 0)))
            (place / "0.png").write_bytes(b"no picture")
    data = folder(**_settings(tmp_path, on_error="skip", validation_fraction=0))
    for level, split in ((0, "train"), (100, "test")):
        (batch,) = data.batches(split, batch_size=9, seed=0, device=CPU)
        levels = batch.images[:, :2, 0, 0].mul(255).round().long().tolist()
        assert levels == [[label, level] for label in batch.labels.tolist()]
        assert sorted(batch.labels.tolist()) == [0, 0, 1, 1]


def test_a_folder_whose_files_are_all_skipped_is_neither_a_class_nor_a_split(tmp_path):
    for name in ("train/a/1", "train/a/2", "train/c/1", "train/c/2", "test/a/1", "test/c/1"):
        _save(tmp_path / "images" / f"{name}.png", Image.new("RGB", (8, 8)))
    for name in ("train/b", "test/b", "val/a", "val/b", "val/c"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_bytes(b"no picture")
    settings = _settings(tmp_path, on_error="skip", validation_fraction=0.25)
    data = folder(**settings)
    assert data.class_names == ("a", "c")
    assert [data.num_images(split) for split in SPLITS] == [3, 1, 2]
    (batch,) = data.batches("test", batch_size=9, seed=0, device=CPU)
    assert batch.labels.tolist() == [0, 1]
    (tmp_path / "images" / "test" / "c" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="all splits must have the same classes, got no c/ in test/"):
        folder(**settings)


def test_cmyk_is_converted(tmp_path):
    red = Image.new("RGB", (8, 8), (250, 10, 10)).convert("CMYK")
    levels = _levels(_save(tmp_path / "a.jpg", red, quality=95))
    assert np.abs(levels[:, 4, 4] - np.array([250, 10, 10])).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_first_frame_of_an_animation_is_taken_and_said(tmp_path, suffix, caplog):
    frames = [Image.new("RGB", (8, 8), (index * 90, 0, 0)) for index in range(2)]
    for number in range(5):
        path = tmp_path / "images" / f"{number}.{suffix}"
        _save(path, frames[1], save_all=True, append_images=[frames[0]], lossless=True)
    assert _levels(path)[0, 0, 0] == 90
    for _ in range(2):  # from the cache too
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            folder(**_settings(tmp_path))
        assert f"0.{suffix} (2 frames)" in caplog.text


@pytest.mark.parametrize("crop", ["center", "stretch", "none"])
def test_crops(tmp_path, crop):
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, 8:16] = 100
    path = _save(tmp_path / "a.png", Image.fromarray(image))
    if crop == "none":
        with pytest.raises(RefusedImage, match="has height 8 and width 24 instead of 8 and 8"):
            _levels(path, crop=crop)
        return
    levels = _levels(path, crop=crop)
    assert (levels == 100).all() == (crop == "center")
    if crop == "stretch":
        assert abs(levels.mean() - 100 / 3) < 1


@pytest.mark.parametrize(("size", "kept"), [((8, 4), np.s_[:, 10:14]), ((4, 24), np.s_[2:6])])
def test_the_largest_centred_part_has_the_proportions_of_the_size(tmp_path, size, kept):
    pixels = np.asarray(_noise(size=(8, 24)))
    path = _save(tmp_path / "a.png", Image.fromarray(pixels))
    assert (_levels(path, size=size) == pixels[kept].transpose(2, 0, 1)).all()
    with pytest.raises(RefusedImage, match=f"has height 8 and width 24 instead of {size[0]} and {size[1]}"):
        _levels(path, size=size, crop="none")
    _save(tmp_path / "images" / "a.png", Image.fromarray(pixels))
    data = folder(**_settings(tmp_path, size=size))
    assert (data.spec.height, data.spec.width) == size
    assert f"{size[0]}x{size[1]}" in data.provenance


@pytest.mark.parametrize(
    ("shape", "size", "box"),  # left, top, right, bottom
    [
        ((10, 7), (2, 3), (0, 2, 7, 7)),  # 14 / 3 is nearer to 5, and the odd row is left out below
        ((7, 10), (3, 2), (2, 0, 7, 7)),
        ((1, 5), (8, 1), (2, 0, 3, 1)),  # an eighth of a pixel
        ((5, 1), (1, 8), (0, 2, 1, 3)),
    ],
)
def test_the_centred_part_has_whole_pixels_and_is_scaled_bicubically(tmp_path, shape, size, box):
    image = _noise(size=shape)
    expected = image.resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    path = _save(tmp_path / "a.png", image)
    assert np.array_equal(_levels(path, size=size), np.asarray(expected).transpose(2, 0, 1))


def test_many_files_come_back_once_each_in_their_order():
    names = [f"{index}.png" for index in range(2500)]
    with tqdm(disable=True) as bar:
        assert list(decoded(names, str.upper, num_workers=2, bar=bar)) == [(name, name.upper()) for name in names]


def test_a_sample_is_read_as_it_is_stored(tmp_path):
    """Upright, on white, with one channel if it is grey; an animation is none."""
    red, turned = Image.new("RGB", (4, 2), (204, 0, 0)), Image.Exif()
    turned[0x0112] = 6
    stored = {
        "palette": (red.convert("P"), {}, (3, 2, 4), [204, 0, 0]),
        "grey with alpha": (Image.new("LA", (4, 2), (90, 255)), {}, (1, 2, 4), [90]),
        "on its side": (red, {"exif": turned}, (3, 4, 2), [204, 0, 0]),
        "transparent": (Image.new("RGBA", (4, 2), (204, 0, 0, 0)), {}, (3, 2, 4), [255, 255, 255]),
    }
    for name, (image, options, shape, colour) in stored.items():
        with bombs_refused():
            levels = decode_as_stored(_save(tmp_path / f"{name}.png", image, **options))
        assert (levels.shape, levels[:, 0, 0].tolist()) == (shape, colour), name
    two = _save(tmp_path / "two.png", red, save_all=True, append_images=[Image.new("RGB", (4, 2))])
    with pytest.raises(RefusedImage, match="holds 2 frames"), bombs_refused():
        decode_as_stored(two)


def _bad_files(folder_path):
    """One file for each way to be bad, and a word of the reason."""
    png, jpeg, webp = io.BytesIO(), io.BytesIO(), io.BytesIO()
    _noise(size=(40, 40)).save(png, "PNG")
    _noise(size=(40, 40)).save(jpeg, "JPEG")
    _noise(size=(40, 40)).save(webp, "WEBP")
    gif = io.BytesIO()
    _noise().save(gif, "GIF")
    files = {
        "empty.png": (b"", "is empty"),
        "text.jpg": (b"not an image", "is not a PNG, JPEG or WEBP image"),
        "renamed_gif.png": (gif.getvalue(), "is not a PNG"),
        "cut_third.png": (png.getvalue()[: len(png.getvalue()) // 3], "damaged|truncated"),
        "no_end.png": (png.getvalue()[:-10], "damaged|truncated"),
        "cut_third.jpg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 3], "damaged|truncated"),
        "no_end.jpg": (jpeg.getvalue()[:-2], "truncated"),
        "cut.webp": (webp.getvalue()[:-20], "damaged|truncated|is not a PNG"),
        "flipped.png": (
            bytes(b ^ (0xFF if i == 900 else 0) for i, b in enumerate(png.getvalue())),
            "has a bad checksum",
        ),
        "large.png": (_bomb(2000), "2000x2000 pixels, more than dataset.max_pixels"),
        "bomb.png": (_bomb(10_000), "too many pixels"),
        "huge_bomb.png": (_bomb(60_000), "too many pixels"),
    }
    folder_path.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in files.items():
        (folder_path / name).write_bytes(content)
    (folder_path / "dangling.png").symlink_to(folder_path / "nowhere")
    return {name: reason for name, (_, reason) in files.items()} | {"dangling.png": "cannot be read"}


def test_every_bad_file_is_listed_once_with_its_reason(tmp_path):
    expected = _bad_files(tmp_path / "images")
    _save(tmp_path / "images" / "good.png", _noise())
    for _ in range(2):  # decoding, and from what the first time learned
        reasons = dict(expected)
        with pytest.raises(DataError) as caught:
            folder(**_settings(tmp_path))
        first, *listed = str(caught.value).split("\n")
        assert first.startswith(f"{len(reasons)} files below")
        assert len(listed) == len(reasons)
        for line in listed:
            name, reason = line.strip().split(" ", 1)
            assert any(word in reason for word in reasons.pop(name).split("|")), line
    with bombs_refused(), pytest.raises(RefusedImage, match="too many pixels"):
        decode(tmp_path / "images" / "bomb.png", RULES)


def test_skipping_is_said_and_limited(tmp_path, caplog):
    reasons = _bad_files(tmp_path / "images")
    for index in range(10):
        _save(tmp_path / "images" / f"good{index}.png", _noise(index))
    with pytest.raises(DataError, match=r"dataset\.max_skipped=10 is the most"):
        folder(**_settings(tmp_path, on_error="skip"))
    with caplog.at_level(logging.WARNING):
        data = folder(**_settings(tmp_path, on_error="skip", max_skipped=len(reasons)))
    assert all(name in caplog.text for name in reasons)
    assert data.provenance == "folder images 8x8, 13 files skipped, 256 levels, 6/2/2"
    ours = {
        bytes((b.images * 255).round().byte().numpy())
        for s in ("train", "validation", "test")
        for b in data.batches(s, batch_size=1, seed=0, device=CPU)
    }
    assert ours == {bytes(np.asarray(_noise(index)).transpose(2, 0, 1).tobytes()) for index in range(10)}


def test_fuzzed_files_are_refused_or_decoded_never_more(tmp_path):
    random = np.random.default_rng(0)
    for suffix in ("PNG", "JPEG", "WEBP"):
        buffer = io.BytesIO()
        _noise(size=(20, 20)).save(buffer, suffix)
        for number in range(60):
            content = bytearray(buffer.getvalue())
            for place in random.integers(0, len(content), 1 + number % 4):
                content[place] = random.integers(256)
            path = tmp_path / "fuzz"
            path.write_bytes(content)
            with contextlib.suppress(RefusedImage):
                assert _levels(path).shape == (3, 8, 8)


def test_flat_folders_have_no_labels_and_folders_of_folders_have(tmp_path):
    for index in range(10):
        _save(tmp_path / "images" / f"{index}.png", _noise(index))
    flat = folder(**_settings(tmp_path))
    assert flat.spec.num_classes == 0
    assert flat.subset("train", 3, seed=0, device=CPU).labels.tolist() == [-1] * 3
    for index in range(10):
        shade = Image.new("RGB", (8, 8), (index % 2 * 100,) * 3)
        _save(tmp_path / "classes" / ("ab"[index % 2]) / "deep" / f"{index}.png", shade)
    data = folder(**_settings(tmp_path, root=str(tmp_path / "classes")))
    assert data.class_names == ("a", "b")
    batch = data.subset("train", 6, seed=0, device=CPU)
    assert torch.equal((batch.images[:, 0, 0, 0] * 255 / 100).round().long(), batch.labels)
    assert folder(**_settings(tmp_path, root=str(tmp_path / "classes"), labels="none")).spec.num_classes == 0
    _save(tmp_path / "classes" / "stray.png", _noise())
    with pytest.raises(DataError, match=r"1 of 11 lie in .*dataset\.labels=none"):
        folder(**_settings(tmp_path, root=str(tmp_path / "classes")))
    with pytest.raises(DataError, match=r"dataset\.labels=folders"):
        folder(**_settings(tmp_path, labels="folders"))


def test_splits_are_disjoint_and_complete(tmp_path):
    for index in range(20):
        _save(tmp_path / "images" / f"{index}.png", Image.new("RGB", (8, 8), (index,) * 3))
    data = folder(**_settings(tmp_path))
    numbers = [
        round(number * 255)
        for split in ("train", "validation", "test")
        for batch in data.batches(split, batch_size=3, seed=0, device=CPU)
        for number in batch.images[:, 0, 0, 0].tolist()
    ]
    assert sorted(numbers) == list(range(20))
    assert [data.num_images(split) for split in ("train", "validation", "test")] == [12, 4, 4]
    assert folder(**_settings(tmp_path, split_seed=1)).fingerprint != data.fingerprint


def test_a_fraction_of_the_images_loses_none_to_rounding(tmp_path):
    for index in range(90):
        _save(tmp_path / "images" / f"{index}.png", Image.new("RGB", (8, 8), (index,) * 3))
    data = folder(**_settings(tmp_path, validation_fraction=0.7, test_fraction=0.11))
    assert [data.num_images(split) for split in ("train", "validation", "test")] == [18, 63, 9]  # 9.9 rounded down


@pytest.mark.parametrize("missing", [(), ("val",), ("test",), ("val", "test")])
def test_folders_of_splits_are_the_splits_and_what_is_missing_is_taken_from_training(tmp_path, missing, caplog):
    """Each image is a grey level of its own, so that a leak would show."""
    levels = {"train": range(20), "val": range(100, 106), "test": range(200, 210)}
    for name in levels.keys() - set(missing):
        for level in levels[name]:
            image = Image.new("RGB", (8, 8), (level,) * 3)
            _save(tmp_path / "images" / name / str(level % 2 + 9) / f"{level}.png", image)
    with caplog.at_level(logging.INFO):
        data = folder(**_settings(tmp_path))
    assert "classes: 0 = 9, 1 = 10" in caplog.text
    found = {
        split: sorted(
            (round(float(image[0, 0, 0]) * 255), data.class_names[label])
            for batch in data.batches(split, batch_size=3, seed=0, device=CPU)
            for image, label in zip(batch.images, batch.labels, strict=True)
        )
        for split in ("train", "validation", "test")
    }
    whole = sorted(pair for split in found.values() for pair in split)
    given = [level for name in levels.keys() - set(missing) for level in levels[name]]
    assert whole == sorted((level, str(level % 2 + 9)) for level in given)
    sizes = (20 - 4 * len(missing), 4 if "val" in missing else 6, 4 if "test" in missing else 10)
    assert tuple(map(len, found.values())) == sizes
    for split, name in (("validation", "val"), ("test", "test")):
        source = "train" if name in missing else name
        assert {level for level, _ in found[split]} <= set(levels[source])
    names = " ".join(name for name in levels if name not in missing)
    assert f"folder images 8x8, splits {names}, 256 levels, " in data.provenance


def test_cache_is_used_and_notices_changes(tmp_path, monkeypatch, capsys):
    for index in range(6):
        _save(tmp_path / "images" / f"{index}.png", Image.new("RGB", (8, 8), (index,) * 3))
    first = folder(**_settings(tmp_path)).fingerprint
    (home,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]

    assert {path.name for path in (tmp_path / "cache").iterdir()} == {home.name}  # no lock stays

    calls = []
    with monkeypatch.context() as patch:  # a cache that is whole may be read-only
        patch.setattr("genlab.data.folder_cache.exclusive_access", None)
        assert folder(**_settings(tmp_path)).fingerprint == first
    monkeypatch.setattr("genlab.data.folder_cache.decode", lambda *a: calls.append(a) or decode(*a))
    assert folder(**_settings(tmp_path)).fingerprint == first
    assert calls == []
    with (home / "images.u8").open("r+b") as file:  # cut short
        file.truncate(100)
    assert folder(**_settings(tmp_path)).fingerprint == first
    assert len(calls) == 6
    (home / "manifest.json").write_text("{")
    home.rename(home.with_name(f".{home.name}.0.tmp"))  # what a killed run leaves
    assert folder(**_settings(tmp_path)).fingerprint == first
    assert len(calls) == 12
    _save(tmp_path / "images" / "3.png", Image.new("RGB", (8, 8), (77,) * 3))
    assert folder(**_settings(tmp_path)).fingerprint != first
    assert folder(**_settings(tmp_path, size=4)).spec.height == 4
    assert not list((tmp_path / "cache").glob(".*"))
    assert capsys.readouterr().err == "", "a bar belongs to a terminal"


def test_the_cache_of_other_files_or_of_other_rules_is_not_taken(tmp_path):
    """All files have one name, one time and, but for the last, one size."""

    def shade(place, level, **changes):
        image = np.full((8, 8, 4), level, np.uint8)
        image[..., 3] = 51
        path = _save(tmp_path / place / "a.png", Image.fromarray(image), compress_level=0)
        os.utime(path, ns=(0, 0))
        return folder(**_settings(tmp_path, root=str(tmp_path / place), **changes)).fingerprint

    fingerprints = [shade("images", 10), shade("images", 10, background=0), shade("others", 200)]
    assert len(set(fingerprints)) == 3
    os.utime(_save(tmp_path / "images" / "a.png", Image.new("RGB", (8, 8), (77,) * 3)), ns=(0, 0))
    assert folder(**_settings(tmp_path)).fingerprint not in fingerprints


def test_empty_missing_and_useless_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.root must be an existing folder"):
        folder(**_settings(tmp_path))
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has none"):
        folder(**_settings(tmp_path))
    (tmp_path / "images" / "notes.txt").write_text("")
    (tmp_path / "images" / ".hidden.png").write_text("")
    with pytest.raises(DataError, match=r"it holds 1 \.txt, 1 hidden files"):
        folder(**_settings(tmp_path))
    (tmp_path / "images" / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="no file below"):
        folder(**_settings(tmp_path, on_error="skip"))
    with pytest.raises(ConfigurationError, match=r"dataset\.root must name the folder"):
        folder(**_settings(tmp_path, root=None))


def test_what_is_passed_over_is_said(tmp_path, caplog):
    for index in range(5):
        _save(tmp_path / "images" / f"{index}.png", _noise(index))
    _save(tmp_path / "images" / "picture.gif", _noise())
    with caplog.at_level(logging.WARNING):
        folder(**_settings(tmp_path))
    assert "1 .gif" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"size": (8, 0)}, "size must be at least 1"),
        ({"background": 256}, "background must be between 0 and 255"),
        ({"max_pixels": 10**9}, "max_pixels must be between"),
        ({"test_fraction": 0.8}, "sum to less than 1"),
        ({"validation_fraction": float("nan")}, "sum to less than 1"),
        ({"max_skipped": -1}, "must be at least 0"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        folder(**_settings(tmp_path, **changes))
