"""Files and downloads of every bad kind: each is named once and not used, and the next run repairs what it can."""

import gzip
import hashlib
import io
import re
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data import download, mnist
from tests.conftest import Genlab
from tests.data.servers import serve
from tests.data.sources import png, png_chunk, write_mnist
from tests.faults.harness import TINY, checkpoint_of, environment, fork
from tests.faults.tally import Tally

FAULT = "13 bad data"
SIDE = 16
SHORT = (*TINY["gated_pixelcnn"][2:], "trainer.num_steps=2", "trainer.checkpoint_interval=1", "model=gated_pixelcnn")
SHORT = tuple(word for word in SHORT if not word.startswith("dataset."))
MNIST_FILES = [f"{prefix}-{kind}-ubyte" for prefix in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def white(side: int) -> bytes:
    """A one-bit PNG of a few kilobytes."""
    return png(side, side, bits=1, colour=0, rows=(b"\0" + b"\xff" * ((side + 7) // 8)) * side)


def photograph(mode: str = "RGB") -> Image.Image:
    """A smooth picture of mean 127 in every channel."""
    ramp = np.linspace(0, 254, SIDE)
    levels = np.stack([np.add.outer(ramp, ramp) / 2] * 3, axis=-1).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


GREY_16 = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)


def strange_files() -> dict[str, tuple[bytes, float]]:
    """Thirteen kinds that the rules take, and the mean grey level that they must come to."""
    transparent = photograph("RGBA")
    transparent.putalpha(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = Image.new("P", (SIDE, SIDE), 1)
    palette.putpalette([0, 0, 0, 90, 90, 90])
    frames = [Image.new("RGB", (SIDE, SIDE), (level,) * 3) for level in (60, 200)]
    colour_16 = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in GREY_16)
    return {
        "animated.png": (encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), 60),
        "animated.webp": (encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True), 60),
        "bits_1.png": (encoded(Image.new("1", (SIDE, SIDE), 1), "PNG"), 255),
        "bits_16.png": (encoded(Image.fromarray(GREY_16), "PNG"), float(GREY_16.mean()) / 257),
        "bits_16_colour.png": (png(SIDE, SIDE, bits=16, colour=2, rows=colour_16), float(GREY_16.mean()) / 257),
        "cmyk.jpg": (encoded(photograph("CMYK"), "JPEG", quality=95), 127),
        "colour.jpg": (encoded(photograph(), "JPEG", quality=95), 127),
        "grey.png": (encoded(photograph("L"), "PNG"), 127),
        "palette.png": (encoded(palette, "PNG"), 90),
        "progressive.jpg": (encoded(photograph(), "JPEG", quality=95, progressive=True), 127),
        "transparent.png": (encoded(transparent, "PNG"), 255),
        "transparent_palette.png": (encoded(palette, "PNG", transparency=1), 255),
        "turned.jpg": (encoded(photograph(), "JPEG", quality=95, exif=turned), 127),
    }


def bad_files() -> dict[str, bytes]:
    """Thirteen kinds that the rules refuse."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    png_file, jpeg, webp = (encoded(noise, kind) for kind in ("PNG", "JPEG", "WEBP"))
    level = png_chunk(b"tRNS", struct.pack(">H", 7))
    rows_16 = b"".join(b"\0" + row.astype(">u2").tobytes() for row in GREY_16)
    return {
        "bits_16_transparent.png": png(SIDE, SIDE, bits=16, colour=0, rows=rows_16, extra=level),
        "bomb.png": white(10_000),
        "cut.jpg": jpeg[: len(jpeg) // 3],
        "cut.png": png_file[: len(png_file) // 3],
        "cut.webp": webp[:-20],
        "empty.png": b"",
        "flipped.png": bytes(byte ^ (0xFF if index == 900 else 0) for index, byte in enumerate(png_file)),
        "gif.png": encoded(noise, "GIF"),
        "no_end.jpg": jpeg[:-2],
        "no_end.png": png_file[:-10],
        "random.png": np.random.default_rng(1).bytes(2000),
        "text.jpg": b"this is no picture",
        "tiff.png": encoded(noise, "TIFF"),
    }


def write_all(folder: Path) -> tuple[dict[str, float], list[str]]:
    """All twenty-six; returns the means of the ones and the names of the others."""
    folder.mkdir()
    strange, bad = strange_files(), bad_files()
    assert len(strange) + len(bad) == 26
    for name, content in ({name: content for name, (content, _) in strange.items()} | bad).items():
        (folder / name).write_bytes(content)
    return {name: mean for name, (_, mean) in strange.items()}, sorted(bad)


def words_of_folder(folder: Path, cache: Path) -> tuple[str, ...]:
    settings = (f"root={folder}", f"cache={cache}", f"size={SIDE}", "channels=1", "num_workers=1")
    return (*SHORT, "dataset=folder", *(f"dataset.{setting}" for setting in settings))


@pytest.mark.slow
def test_each_of_the_bad_among_26_kinds_is_named_once(tmp_path: Path, tally: Tally) -> None:
    _, bad = write_all(tmp_path / "files")
    with tally.trying(FAULT, "kinds of file, those the rules refuse", count=len(bad)):
        refused = fork(*words_of_folder(tmp_path / "files", tmp_path / "cache"), folder=tmp_path / "run").wait()
        assert refused.returncode == 3, refused.stderr
        first, *listed = refused.stderr.partition("genlab: error: ")[2].splitlines()
        assert first.startswith(f"{len(bad)} files below ")
        assert [line.split()[0] for line in listed] == bad
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_the_rules_take_has_the_right_levels(tmp_path: Path, tally: Tally) -> None:
    means, bad = write_all(tmp_path / "files")
    words = ("dataset.on_error=skip", f"dataset.max_skipped={len(bad)}")
    with tally.trying(FAULT, "kinds of file, those the rules take", count=len(means)):
        run = fork(*words_of_folder(tmp_path / "files", tmp_path / "cache"), *words, folder=tmp_path / "run").succeed()
        assert all(f"\n  {name} " in run.stdout for name in bad)
        (levels,) = (tmp_path / "cache").rglob("images.u8")
        images = np.fromfile(levels, dtype=np.uint8).reshape(len(means), SIDE * SIDE)
        for image, (name, mean) in zip(images, sorted(means.items()), strict=True):
            assert abs(image.mean() - mean) <= 0.01 * mean, name
    with Image.open(tmp_path / "files" / "bits_16.png") as image:
        assert abs(np.asarray(image.convert("L")).mean() - means["bits_16.png"]) > 0.5 * means["bits_16.png"]
    tally.wrong_variant_noticed(FAULT, "Pillow's own conversion makes 16 bits white")


@pytest.mark.parametrize("kind", ["empty", "other sizes"])
def test_folders_without_a_picture_to_use_are_refused(genlab: Genlab, tmp_path: Path, tally: Tally, kind: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    if kind == "other sizes":
        for name, size in (("a.png", (SIDE, SIDE + 1)), ("b.png", (40, 8))):
            (files / name).write_bytes(encoded(Image.new("L", size), "PNG"))
    with tally.trying(FAULT, "folders that are empty or of other sizes"):
        words = (*words_of_folder(files, tmp_path / "cache"), "dataset.crop=none", f"hydra.run.dir={tmp_path / 'run'}")
        outcome = genlab("train", *words)
        assert outcome.code == 3, outcome.errors
        message = "has none" if kind == "empty" else "has height 8 and width 40 instead of 16 and 16"
        assert message in outcome.errors
        assert not (tmp_path / "run").exists()


# Peak memory in MiB of reading one file, by genlab's rules or by Pillow alone.
MEMORY = """
import re, sys
from pathlib import Path
from PIL import Image
from genlab.data.decoding import PictureRules, RefusedImage, bombs_refused, decode
path = Path(sys.argv[1])
if sys.argv[2] == "ours":
    rules = PictureRules(size=32, crop="center", channels=3, background=255, max_pixels=50_000_000)
    try:
        with bombs_refused():
            decode(path, rules)
    except RefusedImage as refusal:
        print(refusal, file=sys.stderr)
else:
    Image.MAX_IMAGE_PIXELS = None
    Image.open(path).convert("RGB").resize((32, 32))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peak_memory(path: Path, how: str) -> int:
    line = [sys.executable, "-c", MEMORY, str(path), how]
    return int(subprocess.run(line, capture_output=True, text=True, env=environment(), check=True).stdout) // 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_hundred_megapixels_cost_no_memory(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(white(10_000))
    assert path.stat().st_size < 50_000
    with tally.trying(FAULT, "pictures of 100 megapixels"):
        assert peak_memory(path, "ours") < 200
    assert peak_memory(path, "Pillow alone") > 400
    tally.wrong_variant_noticed(FAULT, "Pillow without a limit decodes 100 megapixels")


def test_damaged_files_of_mnist_are_named_once(genlab: Genlab, tmp_path: Path, tally: Tally) -> None:
    write_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    damage: dict[str, Callable[[bytes], bytes]] = {
        MNIST_FILES[0]: lambda content: content[:-1],
        MNIST_FILES[1]: lambda content: b"",
        MNIST_FILES[2]: lambda content: np.random.default_rng(0).bytes(len(content)),
    }
    for name, change in damage.items():
        (raw / name).write_bytes(change((raw / name).read_bytes()))
    (raw / MNIST_FILES[3]).unlink()
    with tally.trying(FAULT, "files of MNIST: short, empty, random, missing", count=4):
        words = (*SHORT, "dataset=mnist", f"dataset.root={tmp_path}", "dataset.download=false")
        outcome = genlab("train", *words)
        assert outcome.code == 3, outcome.errors
        (line,) = outcome.errors.splitlines()
        for name in MNIST_FILES:
            assert line.count(name) == 1
        assert line.count("is damaged") == 3
        assert "put all of them there by hand" in line


def small_mnist(folder: Path) -> dict[str, bytes]:
    """Archives of small files, as torchvision's source would serve them."""
    write_mnist(folder, num_train=200, num_test=20)
    raw = folder / "MNIST" / "raw"
    return {f"{name}.gz": gzip.compress((raw / name).read_bytes(), mtime=0) for name in MNIST_FILES}


def publish(address: str, archives: dict[str, bytes]) -> None:
    """Make torchvision and genlab believe that these archives are MNIST."""
    from torchvision import datasets

    datasets.MNIST.mirrors = [address]
    datasets.MNIST.resources = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    sums = {
        name.removesuffix(".gz"): hashlib.md5(gzip.decompress(content)).hexdigest()
        for name, content in archives.items()
    }
    mnist.MNIST = replace(mnist.MNIST, md5=sums)


@pytest.mark.slow
def test_a_cut_download_is_never_accepted_and_the_next_run_repairs_it(tmp_path: Path, tally: Tally) -> None:
    archives = small_mnist(tmp_path / "published")
    cut = f"{MNIST_FILES[0]}.gz"
    root = tmp_path / "root"
    root.mkdir()
    words = (*SHORT, "dataset=mnist", f"dataset.root={root}", "dataset.num_validation=40")
    with serve(archives, cut={cut: 2}) as (address, asked), tally.trying(FAULT, "downloads cut at a third"):
        start = partial(fork, *words, hook=partial(publish, address, archives))
        first = start(folder=tmp_path / "first").wait()
        assert first.returncode == 3, first.stderr
        line = first.stderr.splitlines()[-1]
        assert "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte are missing" in line
        assert address in line
        second = start(folder=tmp_path / "second").wait()
        assert second.returncode == 0, second.stderr
        assert asked.count(cut) == 4  # torchvision asks once for a redirection and once for the file
        assert checkpoint_of(tmp_path / "second")["step"] == 2
    # With everything there, nobody is asked: the server is gone.
    with tally.trying(FAULT, "runs without a network, with the data there"):
        third = start(folder=tmp_path / "third").wait()
        assert third.returncode == 0, third.stderr
    (root / "MNIST" / "raw" / MNIST_FILES[0]).unlink()
    for archive in root.rglob("*.gz"):
        archive.unlink()
    with serve({}) as (address, _), tally.trying(FAULT, "downloads that are not there"):
        absent = fork(*words, hook=partial(publish, address, archives), folder=tmp_path / "absent").wait()
        assert absent.returncode == 3
        assert "404" in absent.stderr.splitlines()[-1]


@contextmanager
def closed_network() -> Iterator[tuple[str, list[str]]]:
    """A proxy that lets nothing through and notes what it was asked for."""
    asked: list[str] = []

    class Refuse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().strip())
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def fall_to_http() -> None:
    """Leave torchvision as it is."""
    download._NoDowngrade.http_request = lambda self, request: request  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("hook", [None, fall_to_http], ids=["ours", "wrong variant"])
def test_without_a_network_a_line_says_what_to_do_and_http_is_not_tried(
    tmp_path: Path, tally: Tally, hook: Callable[[], None] | None
) -> None:
    pytest.importorskip("torchvision")
    words = (*SHORT, "dataset=mnist", f"dataset.root={tmp_path}")
    with closed_network() as (proxy, asked):
        variables = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
        variables |= dict.fromkeys(("no_proxy", "NO_PROXY"), "")
        result = fork(*words, folder=tmp_path / "run", hook=hook, **variables).wait()
    over_http = [line for line in asked if re.match(r"\w+ http://", line)]
    if hook is not None:
        assert over_http
        tally.wrong_variant_noticed(FAULT, "torchvision as it is falls to http")
        return
    with tally.trying(FAULT, "runs without a network and without data"):
        assert result.returncode == 3, result.stderr
        line = result.stderr.splitlines()[-1]
        assert line.startswith("genlab: error: MNIST: ")
        for part in ("https://ossci-datasets.s3.amazonaws.com/mnist/", "502", "put all of them", "dataset=digits"):
            assert part in line
        assert any(line.startswith("CONNECT ") for line in asked)
        assert over_http == []
        assert not (tmp_path / "run").exists()
