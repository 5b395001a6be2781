"""`genlab board` on trained runs: the data of its server, and the page in a browser."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from tests.browser import browser, screenshot

pytestmark = pytest.mark.slow

TINY = ["trainer=smoke", "dataset.size=8", "num_threads=1"]
SMALL = [*TINY, "model.num_units=16"]
NUM_STEPS = 24
GAN, DRAW, SWEEP = "digits_grey-gan/one", "digits-draw/two", "sweeps/three"
CHOICES = {"model": {"gan", "draw"}, "dataset": {"digits_grey", "digits"}, "techniques": {"none"}}


def genlab(*arguments: str, cwd: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "genlab", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two runs, one of them resumed from before its last log entries, and a sweep of two jobs."""
    here = tmp_path_factory.mktemp("board")
    every_step = [f"trainer.num_steps={NUM_STEPS}", "trainer.sample_interval=1", "trainer.log_interval=1"]
    genlab("train", "model=gan", *TINY, *every_step, f"hydra.run.dir=outputs/{GAN}", cwd=here)
    draw = ["model=draw", *SMALL, "model.num_glimpses=2", "trainer.checkpoint_interval=8", *every_step]
    genlab("train", *draw, f"hydra.run.dir=outputs/{DRAW}", cwd=here)
    (here / "outputs" / DRAW / "checkpoints" / "last.safetensors").unlink()  # as if killed after step 16 was saved
    genlab("train", f"resume=outputs/{DRAW}", cwd=here)
    sweep = ["-m", "model=draw", *SMALL, "model.num_glimpses=2,3", f"hydra.sweep.dir=outputs/{SWEEP}"]
    genlab("train", *sweep, cwd=here)
    assert len(list((here / "outputs" / DRAW).glob("events.*"))) == 2
    return here / "outputs"


@contextmanager
def board(outputs: Path, below: str = ".") -> Iterator[str]:
    """Return the address of a running board on a folder below `outputs`."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "genlab", "board", os.path.normpath(f"outputs/{below}"), f"port={port}"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=outputs.parent, start_new_session=True
    )
    address = f"http://localhost:{port}"
    try:
        _wait_for_runs(address)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _wait_for_runs(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if fetch(f"{address}/data/runs"):
                time.sleep(3)  # the rest of what it reads follows at once
                return
        except (URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise TimeoutError("TensorBoard shows no runs")


def fetch(address: str, *, body: dict[str, Any] | None = None, **query: str) -> Any:
    full = f"{address}?{urlencode(query)}" if query else address
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(full, data=data, headers={"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("folder", "runs"),
    [
        (".", {GAN, DRAW, f"{SWEEP}/000-num_glimpses-2", f"{SWEEP}/001-num_glimpses-3"}),
        (DRAW, {"."}),
        (SWEEP, {"000-num_glimpses-2", "001-num_glimpses-3"}),
    ],
)
def test_one_run_a_sweep_or_all_have_tidy_names(outputs: Path, folder: str, runs: set[str]) -> None:
    with board(outputs, folder) as address:
        assert set(fetch(f"{address}/data/runs")) == runs


def test_what_the_server_holds(outputs: Path) -> None:
    with board(outputs) as address:
        scalars = f"{address}/data/plugin/scalars"
        tags = fetch(f"{scalars}/tags")
        overlaid = [run for run, of_run in tags.items() if "validation/nll_upper_bound_nats" in of_run]
        assert len(overlaid) == 3  # the run and the sweep's two
        points = fetch(f"{scalars}/scalars", run=DRAW, tag="speed/images_per_second")
        assert [step for _, step, _ in points] == list(range(1, NUM_STEPS + 1))
        for run in (GAN, DRAW):
            pictures = fetch(f"{address}/data/plugin/images/images", run=run, tag="samples", sample="0")
            assert [picture["step"] for picture in pictures] == list(range(1, NUM_STEPS + 1))

        (category,) = fetch(f"{address}/data/plugin/custom_scalars/layout")["category"]
        charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
        assert charts["adversarial_nats"] == [
            "^train/discriminator/adversarial_nats$",
            "^train/generator/adversarial_nats$",
        ]
        drawn = fetch(
            f"{address}/data/plugin/custom_scalars/scalars", run=GAN, tag="^train/generator/adversarial_nats$"
        )
        assert list(drawn["tag_to_events"]) == ["train/generator/adversarial_nats"]

        experiment = fetch(f"{address}/data/plugin/hparams/experiment", body={"experimentName": ""})
        columns = {info["name"] for info in experiment["hparamInfos"]}
        assert {"seed", "model", "model.num_glimpses", "optimizer.default.lr", "trainer.ema_decay"} <= columns
        values = {
            name: set(info["domainDiscrete"]) for info in experiment["hparamInfos"] if (name := info["name"]) in CHOICES
        }
        assert values == CHOICES
        request = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
            "colParams": [{"metric": {"tag": "validation/nll_upper_bound_nats", "group": ""}}],
            "startIndex": 0,
            "sliceSize": 100,
        }
        groups = fetch(f"{address}/data/plugin/hparams/session_groups", body=request)["sessionGroups"]
    assert len(groups) == 4  # one row a run, the resumed one too
    assert sum(bool(group.get("metricValues")) for group in groups) >= 3


def test_what_a_browser_shows(outputs: Path, tmp_path: Path) -> None:
    with board(outputs) as address, browser() as opened:
        from playwright.sync_api import expect

        page = opened.new_page(viewport={"width": 1400, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        expect.set_options(timeout=60_000)

        page.goto(f"{address}/#scalars")
        page.locator("tf-tag-filterer input").first.fill("train/.*nats|validation/nll")
        for text in ("train/discriminator/adversarial_nats", "validation/nll_upper_bound_nats"):
            expect(page.get_by_text(text, exact=True).first).to_be_visible()
        for name in (GAN, DRAW, SWEEP):
            expect(page.get_by_text(name).first).to_be_visible()
        shots = [screenshot(page, "board_scalars", tmp_path)]

        page.goto(f"{address}/#custom_scalars")
        expect(page.get_by_text("adversarial_nats", exact=True).first).to_be_visible()
        shots.append(screenshot(page, "board_custom_scalars", tmp_path))

        page.goto(f"{address}/#images")
        for text in ("samples", "canvases"):
            expect(page.get_by_text(text, exact=True).first).to_be_visible()
        expect(page.locator("tf-image-loader img").first).to_be_visible()
        shots.append(screenshot(page, "board_images", tmp_path))

        page.goto(f"{address}/#hparams")
        expect(page.get_by_text("model.num_glimpses", exact=True).first).to_be_visible()
        for trial in (GAN, DRAW):  # the hidden page of the scalars names the runs alike
            expect(page.locator("vaadin-grid").get_by_text(trial, exact=True).first).to_be_visible()
        shots.append(screenshot(page, "board_hparams", tmp_path))
    assert errors == []
    for path in shots:
        colours = Image.open(path).convert("RGB").getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 100, f"{path} is blank"
