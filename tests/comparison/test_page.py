"""One page: whole by itself, harmless whatever a run is called, light, and right about its curves and pictures."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from genlab.comparison.charts import MAX_POINTS, Line, chart, thinned
from genlab.comparison.page import MAX_DRAWN, MAX_PICTURE_SIDE, as_page, short_names
from genlab.comparison.runs import read_runs
from genlab.sampling.pictures import save_picture
from tests.comparison.conftest import RunMaker, entry

VOID = {"meta", "img", "br", "path", "wbr"}
HOSTILE = "<script>alert(1)<\u2044script>'\"&amp;<img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """Parser that collects elements with their attributes, and checks that each is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(folder: Path) -> Reader:
    return Reader(as_page(read_runs([folder]), command="genlab compare"))


def test_the_page_is_whole_and_loads_nothing(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", measures=[entry("nll_nats", 81.0)], has_samples=True)
    make_run("b", measures=[entry("nll_nats", 80.0)], configuration={"seed": 7}, overrides=("model=draw", "seed=7"))
    reader = page(tmp_path)
    for _, attributes in reader.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#samples-"))
    (policy,) = [meta["content"] for meta in reader.all("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    text = " ".join(reader.text)
    assert "genlab train model=draw seed=7" in text
    assert "80.00 *" in text
    assert {"Runs", "Measures", "Curves", "Samples", "What differs", "How to repeat each run"} <= set(reader.text)


def test_a_long_title_of_a_chart_may_break_between_its_words_alone(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", curve=[3.0, 2.0])
    text = as_page(read_runs([tmp_path]), command="genlab compare")
    assert "<figcaption>train/<wbr>model/<wbr>nll_<wbr>nats</figcaption>" in text


def test_the_policy_lets_only_our_script_run(make_run: RunMaker, tmp_path: Path) -> None:
    import hashlib

    make_run("a")
    text = as_page(read_runs([tmp_path]), command="genlab compare")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in text


def test_a_hostile_run_injects_nothing(make_run: RunMaker, tmp_path: Path) -> None:
    make_run(
        HOSTILE,
        has_samples=True,
        summary={"status": HOSTILE, "reason": HOSTILE},
        configuration={"seed": HOSTILE, HOSTILE: HOSTILE},
        overrides=(f"model={HOSTILE}",),
        choices={"model": HOSTILE, "dataset": HOSTILE},
        measures=[entry(f"nll_{HOSTILE}", 1.0, binarization=HOSTILE), entry("nll_nats", 1.0, binarization=HOSTILE)],
    )
    other = make_run("b", measures=[entry("nll_nats", 1.0)])
    (other / "metrics.jsonl").write_text('{"step": 1, "train/</script><b onclick=alert(3)>": 1.0}\n')
    text = as_page(read_runs([tmp_path]), command=HOSTILE)
    reader = Reader(text)
    assert len(reader.all("script")) == 1
    assert not reader.all("b")
    assert [image for image in reader.all("img") if not (image["src"] or "").startswith("data:image/png;base64,")] == []
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert HOSTILE in "".join(reader.text)


def test_pictures_are_the_newest_scaled_down_and_described(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", has_samples=True)
    colour = make_run("b", has_samples=True)
    Image.new("RGB", (900, 300), (10, 200, 30)).save(colour / "samples" / "step_00000200.png")
    damaged = make_run("c", has_samples=True)
    (damaged / "samples" / "step_00000900.png").write_bytes(b"\x89PNG no picture")
    reader = page(tmp_path)
    thumbnails = [image for image in reader.all("img") if (image["alt"] or "").startswith("Some samples")]
    assert [image["alt"] for image in thumbnails] == ["Some samples of run 1", "Some samples of run 2"]
    images = [image for image in reader.all("img") if image not in thumbnails]
    assert [image["alt"] for image in images] == ["Samples of run 1, a", "Samples of run 2, b"]
    decoded = [
        Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition("base64,")[2]))) for image in images
    ]
    assert decoded[0].size == (MAX_PICTURE_SIDE, round(MAX_PICTURE_SIDE * 600 / 700))
    assert decoded[0].getextrema() == (200, 200)
    assert decoded[1].size == (MAX_PICTURE_SIDE, MAX_PICTURE_SIDE // 3)
    pixel = decoded[1].getpixel((100, 100))
    assert isinstance(pixel, tuple)
    assert max(abs(one - other) for one, other in zip(pixel, (10, 200, 30), strict=True)) <= 4
    assert any("cannot be read" in text for text in reader.text)


def test_pictures_of_quality_stand_beside_the_samples_with_their_number(make_run: RunMaker, tmp_path: Path) -> None:
    folder = make_run("a", has_samples=True)
    description = f"step 5: Frechet distance 0.1{HOSTILE}"
    save_picture(torch.zeros(1, 20, 30), folder / "samples" / "quality_samples.png", description=description)
    (folder / "samples" / "quality_class_grid.png").symlink_to(tmp_path / "elsewhere.png")
    Image.new("L", (9, 9)).save(tmp_path / "elsewhere.png")
    reader = page(tmp_path)
    names = [image["alt"] for image in reader.all("img")]
    assert names == ["Some samples of run 1", "Samples of run 1, a", "Quality samples of run 1, a"]
    assert f"#1 a, quality samples: {description}" in "".join(reader.text)


def test_what_differs_is_on_top_by_the_choices_of_short_names(make_run: RunMaker, tmp_path: Path) -> None:
    for name, objective, rate in (("mnist-gan/0001", "hinge", 1e-3), ("mnist-gan/0002-lr", "hinge", 1e-4)):
        make_run(
            name,
            configuration={
                "seed": 0,
                "model": {"_target_": "genlab.models.gan.gan.GAN", "objective": {"_target_": "genlab.x.Hinge"}},
                "optimizer": {"default": {"lr": rate}},
            },
            choices={"model": "sngan", "dataset": "mnist", "model/objective": objective},
        )
    runs = read_runs([tmp_path])
    assert [run.configuration["model.objective"] for run in runs] == ["hinge", "hinge"]
    assert short_names([run.name for run in runs]) == ["0001", "0002-lr"]
    reader = page(tmp_path)
    heads = [text for text in reader.text if text in ("model", "data", "lr", "seed")]
    assert heads[:1] == ["lr"]
    (same,) = [text for text in reader.text if text.startswith("the same in all: ")]
    assert same.startswith("the same in all: model sngan, data mnist, status ")
    assert not any("genlab.x" in text for text in reader.text)


def test_one_run_alone_shows_all_that_is_known_of_it(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", summary={"seconds": None})
    reader = page(tmp_path)
    found = [cell.get("data-label") for cell in reader.all("td")]
    labels = ["model", "data", "status", "step", "images/s", "parameters", "commit", "hardware"]
    assert [label for label in found if label] == labels
    assert {"draw", "finished", "1,234", "A Processor, 1 thread"} <= set(reader.text)


def test_names_get_as_many_parents_as_they_need() -> None:
    assert short_names(["a/0001", "b/0001", "b/0002", "c"]) == ["a/0001", "b/0001", "0002", "c"]


@pytest.mark.slow
def test_many_runs_stay_light(make_run: RunMaker, tmp_path: Path) -> None:
    for number in range(MAX_DRAWN + 2):
        make_run(f"run{number:02d}", curve=[float(step % 7 + 1) for step in range(2000)])
    text = as_page(read_runs([tmp_path]), command="genlab compare")
    assert f"the first {MAX_DRAWN} runs" in text
    assert len(text) < 1_500_000


def points_of(drawing: str) -> list[list[tuple[float, float]]]:
    (path,) = re.findall(r'<path class="line [^"]*" d="([^"]*)"', drawing)
    stretches = [stretch.removesuffix("h0") for stretch in path.split("M")[1:]]
    return [[tuple(map(float, point.split())) for point in stretch.split("L")] for stretch in stretches]  # type: ignore[misc]


def test_a_curve_is_drawn_where_its_numbers_are() -> None:
    ((first, middle, last),) = points_of(chart("t", [Line(1, [(0, 10.0), (50, 20.0), (100, 30.0)])]))
    assert first[0] < middle[0] < last[0]
    assert middle[0] - first[0] == pytest.approx(last[0] - middle[0], abs=0.2)
    assert first[1] - middle[1] == pytest.approx(middle[1] - last[1], abs=0.2)
    assert first[1] > last[1]  # SVG counts downwards


def test_a_wide_range_is_drawn_on_a_logarithmic_axis() -> None:
    drawing = chart("t", [Line(1, [(0, 1.0), (50, 10.0), (100, 100.0)])])
    ((first, middle, last),) = points_of(drawing)
    assert first[1] - middle[1] == pytest.approx(middle[1] - last[1], abs=0.2)
    assert "logarithmic" in drawing
    assert "logarithmic" not in chart("t", [Line(1, [(0, -1.0), (50, 10.0), (100, 100.0)])])


def test_a_curve_has_gaps_dots_and_may_be_empty() -> None:
    drawing = chart("t", [Line(1, [(0, 1.0), (10, None), (20, 2.0), (30, 3.0), (40, None)])])
    assert [len(stretch) for stretch in points_of(drawing)] == [1, 2]
    assert "h0" in drawing
    assert chart("t", [Line(1, [(0, None)]), Line(2, [])]) == ""
    assert points_of(chart("t", [Line(1, [(5, 0.0)])]))


def test_a_thinned_curve_keeps_its_ends_and_order() -> None:
    points = [(step, float(step)) for step in range(10_000)]
    kept = thinned(points)
    assert len(kept) == MAX_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert list(kept) == sorted(set(kept))
    assert thinned(points[:5]) == points[:5]


def test_a_pipe_in_the_place_of_the_newest_samples_is_not_waited_for(make_run: RunMaker, tmp_path: Path) -> None:
    folder = make_run("a", has_samples=True)
    os.mkfifo(folder / "samples" / "step_99999999.png")
    assert any("step 99999999: cannot be read" in text for text in page(tmp_path).text)


def test_extreme_numbers_of_a_log_are_drawn(make_run: RunMaker, tmp_path: Path) -> None:
    folder = make_run("a", curve=[1.0])
    steps, values = (0, -(2**53), 2**53, 10**400), (5e-324, 1e100, -1e100, 1e308, -(10**400), float("nan"))
    with (folder / "metrics.jsonl").open("a") as file:
        for step in steps:
            for number, value in enumerate(values):
                file.write(json.dumps({"step": step, "a/both": value, f"a/{number}": value}) + "\n")
    assert "a/both" in "".join(page(tmp_path).text)
