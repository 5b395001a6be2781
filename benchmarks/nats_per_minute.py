"""Test nats against CPU minutes, for each likelihood model on the fixed binarisation of MNIST.

    python -m benchmarks.nats_per_minute [--minutes 1 5 15 60] [--models draw pixelcnn ...] [--threads 1]
                                         [--data FOLDER] [--out outputs/nats_per_minute]

One row is one run of `genlab train experiment=...`. Its number of steps, and with it the schedule of the learning rate,
is fitted to the minutes: short runs on the same machine measure what a step costs. From half an hour on, a model that
has an experiment for long runs is trained by that. A minute is one of CPU time of the whole training process, with its
start; what is compiled was compiled before. The test on the 10,000 images is not counted. A run that exists is not
repeated, so the list of minutes can be extended; other threads or overrides need another folder.
`OUT/results.json` and `OUT/results.md` hold the results; with matplotlib `OUT/results.svg` shows them.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

EXPERIMENTS: Mapping[str, str] = {
    "draw": "draw_mnist_quick",
    "draw_no_attention": "draw_no_attention_mnist_quick",
    "pixelcnn": "pixelcnn_mnist_quick",
    "gated_pixelcnn": "gated_pixelcnn_mnist_quick",
    "pixelcnn_blocks": "pixelcnn_blocks_mnist_quick",
    "pixelcnn_pp": "pixelcnn_pp_mnist_quick",
}
LONG_EXPERIMENTS: Mapping[str, str] = {
    "draw": "draw_mnist_hour",
    "draw_no_attention": "draw_no_attention_mnist_long",
    "gated_pixelcnn": "gated_pixelcnn_mnist_long",
    "pixelcnn_blocks": "pixelcnn_blocks_mnist_long",
}
LEAST_MINUTES_FOR_LONG = 30.0
MEASURES = ("nll_nats", "nll_upper_bound_nats")
"""The first one that a run has is its value; the first is exact, the second a bound."""
LEAST_MINUTES_TO_COMPILE = 5.0
COMPILED = frozenset({"draw", "draw_no_attention", "gated_pixelcnn", "pixelcnn_pp"})
"""The models that gain by it. The choice is the same for the short runs and the long one, whatever their steps."""
_FEWEST_STEPS = 20
"""Of the shorter of the two runs whose difference gives the cost of a step."""
_LEAST_DIFFERENCE = 0.02
"""Between the two, of the budget; and at least the cost of the shorter, most of which is the start."""
_MARGIN = 0.98
"""Of the minutes, because a step of a short run does not cost exactly what one of a long run does."""
_LARGEST_MISS = 0.05
"""Of the minutes; a training that misses them by more is shown with its own, as where the load changed."""
_ONLY_STEPS = ("trainer.validation_interval=0", "trainer.sample_interval=0", "trainer.test_at_end=false")

Run = Callable[[Sequence[str]], float]
"""Carries out `genlab WORDS`, and gives the seconds of CPU time that it took."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run.

    Attributes:
        model: A key of :data:`EXPERIMENTS`.
        minutes: The budget.
        cpu_minutes: What the training took.
        steps: Training steps.
        measure: Of :data:`MEASURES`.
        nats: Its value on the 10,000 test images.
        hardware: Processor, its vector instructions and the threads.
        commit: Of genlab.
    """

    model: str
    minutes: float
    cpu_minutes: float
    steps: int
    measure: str
    nats: float
    hardware: str
    commit: str


def measure(model: str, minutes: float, *, out: Path, run: Run, words: Sequence[str]) -> Result:
    """Train a model for its minutes, test it, and keep the run as ``OUT/MODEL_MINUTES``.

    Args:
        model: A key of :data:`EXPERIMENTS`.
        minutes: CPU minutes of the training.
        out: Folder of the run folders.
        run: See :data:`Run`.
        words: Further words of `genlab train` and `genlab evaluate`.

    Raises:
        ValueError: The minutes do not suffice for one step.
    """
    folder = out / f"{model}_{minutes:g}"
    long = LONG_EXPERIMENTS if minutes >= LEAST_MINUTES_FOR_LONG else {}
    experiment = long.get(model, EXPERIMENTS[model])
    compiles = minutes >= LEAST_MINUTES_TO_COMPILE and model in COMPILED
    choice = f"trainer.compile={str(compiles).lower()}"
    train = ["train", f"experiment={experiment}", *_ONLY_STEPS, choice, *words]

    def train_for(steps: int, folder: Path) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        return run([*train, f"trainer.num_steps={steps}", f"hydra.run.dir={folder}"])

    few = more = _FEWEST_STEPS
    probe = out / "probe"
    if compiles:
        train_for(few, probe)  # compiles, which the next runs find done
    cost_of_few = cost_of_more = train_for(few, probe)
    while cost_of_more - cost_of_few < max(cost_of_few, _LEAST_DIFFERENCE * 60 * minutes):
        more *= 3
        cost_of_more = train_for(more, probe)
    shutil.rmtree(probe, ignore_errors=True)
    a_step = (cost_of_more - cost_of_few) / (more - few)
    steps = int((_MARGIN * 60 * minutes - cost_of_few) / a_step) + few
    if steps < 1:
        raise ValueError(f"{minutes:g} minutes are too few for {model}, whose start takes {cost_of_few:.0f} s")
    seconds = train_for(steps, folder)
    run(["evaluate", f"run={folder}", "num_importance_samples=0", *words])
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    values = {entry["name"]: entry["value"] for entry in evaluation["measures"]}
    name = next(name for name in MEASURES if name in values)
    git = environment.get("git") or {}
    return Result(
        model=model,
        minutes=minutes,
        cpu_minutes=round(seconds / 60, 2),
        steps=steps,
        measure=name,
        nats=round(values[name], 2),
        hardware=f"{environment['cpu']}, {environment['cpu_capability']}, {environment['num_threads']} thread(s)",
        commit=(git.get("commit") or "unknown")[:7] + ("+" if git.get("is_dirty") else ""),
    )


def table(results: Sequence[Result]) -> str:
    """Return nats by model and minutes as a Markdown table, with the machines below."""
    minutes = sorted({result.minutes for result in results})
    found = {(result.model, result.minutes): result for result in results}
    lines = [
        "| model | kind | " + " | ".join(f"{each:g} min" for each in minutes) + " |",
        "|---|---|" + "---|" * len(minutes),
    ]
    for model in EXPERIMENTS:
        own = [found.get((model, each)) for each in minutes]
        kinds = {result.measure for result in own if result}
        if kinds:
            cells = ["not run" if result is None else _cell(result) for result in own]
            kind = "exact" if kinds == {MEASURES[0]} else "bound"
            lines.append(f"| `{model}` | {kind} | {' | '.join(cells)} |")
    machines = sorted({f"{result.hardware}, commit {result.commit}" for result in results})
    return "\n".join([*lines, "", *(f"- {machine}" for machine in machines)])


def _cell(result: Result) -> str:
    missed = abs(result.cpu_minutes - result.minutes) > _LARGEST_MISS * result.minutes
    took = f", {result.cpu_minutes:.3g} min" if missed else ""
    return f"{result.nats:.2f} ({result.steps:,} steps{took})"


def draw(results: Sequence[Result], path: Path) -> bool:
    """Draw nats over minutes; return False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="CPU minutes", ylabel="test nats per image (lower is better)")
    for model in EXPERIMENTS:
        own = sorted((result.cpu_minutes, result.nats, result.measure) for result in results if result.model == model)
        if own:
            kind = "exact" if own[0][2] == MEASURES[0] else "bound"
            axes.plot([each[0] for each in own], [each[1] for each in own], marker="o", label=f"{model} ({kind})")
    minutes = sorted({result.minutes for result in results})
    axes.set_xticks(minutes, [f"{each:g}" for each in minutes])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path)
    return True


def run_genlab(words: Sequence[str]) -> float:
    print(f"genlab {' '.join(words)}", flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "genlab", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(words: Sequence[str] | None = None, *, run: Run = run_genlab) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 15, 60])
    parser.add_argument("--models", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="holds BinarizedMNIST/; otherwise GENLAB_DATA, or a download")
    parser.add_argument("--out", type=Path, default=Path("outputs/nats_per_minute"))
    parser.add_argument("--override", action="append", default=[], help="a word for every training")
    arguments = parser.parse_args(words)
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "results.json"
    results = [Result(**each) for each in json.loads(kept.read_text("utf-8"))] if kept.exists() else []
    if arguments.data:
        os.environ["GENLAB_DATA"] = str(arguments.data.absolute())
    own = [f"num_threads={arguments.threads}", "device=cpu"]

    def run_with_overrides(words: Sequence[str]) -> float:
        return run([*words, *arguments.override] if words[0] == "train" else words)

    for minutes in sorted(arguments.minutes):
        for model in arguments.models:
            if any((result.model, result.minutes) == (model, minutes) for result in results):
                continue
            try:
                results.append(measure(model, minutes, out=out, run=run_with_overrides, words=own))
            except ValueError as error:
                print(error)
                continue
            kept.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")
    text = table(results)
    (out / "results.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if not draw(results, out / "results.svg"):
        print("no picture: matplotlib is not installed")


if __name__ == "__main__":
    main()
