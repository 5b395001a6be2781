"""The defaults of threads, precision and compilation against each explicit choice: whole runs, from the time of a step.

    python -m benchmarks.defaults [FAMILY ...] [--busy 0] [--seconds 4] [--threads 1 2]
                                  [--ways eager compiled] [--precisions float32 bfloat16] [--cold]

A family is a model of ``genlab train model=NAME``, with overrides, or an experiment on the embedded digits. Each is
measured in a process of its own, with the environment that the program sets; its choices take turns there. Figures are
the least time, of CPU for one thread and on the wall for more. ``--busy`` starts so many processes that only count;
figures are then medians on the wall.

The seconds of a compilation are CPU time, of the compiler's processes too: a first step in which it happens, less a
compiled step; ``--cold`` compiles into an empty cache, which takes the longest.

A run of N steps takes the compilation, if there is one, and N steps. Its default is ``trainer.compile=auto`` with the
recipe's number of threads, else the largest, and the type of ``trainer.precision=auto``; the loss is that of the
default over the best of all choices, for a tenth of the recipe's steps, for the recipe, and for ten times as many.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.composed import trainer_of
from benchmarks.processes import CPU, configured
from genlab.config.naming import register_resolvers
from genlab.launch.runtimes import SPIN_SETTINGS, keep_freed_memory
from genlab.training.compilation import choice, compile_networks
from genlab.training.precision import Precision, resolved, threads_for

FAMILIES: dict[str, tuple[str, ...]] = {
    "draw_10": ("model=draw",),
    "draw_16": ("model=draw", "model.num_glimpses=16"),
    "draw_hour": ("experiment=draw_mnist_hour", "dataset=digits"),
    "draw_long": ("experiment=draw_mnist_long", "dataset=digits"),
    "draw_64": ("model=draw", "model.num_glimpses=64", "model.read_size=2", "model.latent_size=100"),
    "draw_no_attention": ("model=draw_no_attention",),
    "draw_classifier": ("model=draw_classifier",),
    "pixelcnn": ("model=pixelcnn",),
    "pixelcnn_blocks": ("model=pixelcnn_blocks",),
    "pixelcnn_blocks_long": ("experiment=pixelcnn_blocks_mnist_long", "dataset=digits"),
    "gated_pixelcnn": ("model=gated_pixelcnn",),
    "gated_pixelcnn_32": ("model=gated_pixelcnn", "model.channels=32"),
    "gated_pixelcnn_48": ("model=gated_pixelcnn", "model.channels=48"),
    "gated_pixelcnn_64": ("model=gated_pixelcnn", "model.channels=64"),
    "gated_pixelcnn_long": ("experiment=gated_pixelcnn_mnist_long", "dataset=digits"),
    "gated_pixelcnn_long_without_dropout": (
        *("experiment=gated_pixelcnn_mnist_long", "dataset=digits"),
        "model.dropout=0",
    ),
    "pixelcnn_pp": ("model=pixelcnn_pp",),
    "gan": ("model=gan",),
    "wgan_gp": ("model=wgan_gp",),
    "dcgan": ("model=dcgan",),
    "semi_supervised_gan": ("model=semi_supervised_gan",),
    "infogan": ("model=infogan",),
    "classifier": ("model=classifier",),
}
EAGER, COMPILED = "eager", "compiled"


def measured(
    family: str,
    seconds: float,
    threads: Sequence[int],
    *,
    ways: Sequence[str],
    precisions: Sequence[Precision],
    is_quiet: bool,
) -> dict[str, float]:
    """Return the seconds of a step of each choice, those of its compilation, and the losses of the default.

    Args:
        family: Of :data:`FAMILIES`.
        seconds: About how long each choice is timed.
        threads: The numbers to try.
        ways: ``eager``, ``compiled`` or both.
        precisions: Types of the products.
        is_quiet: True to take the least time, and CPU time of one thread; else medians of time on the wall.
    """
    steps: dict[str, Callable[[], None]] = {}
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, precision in itertools.product(ways, precisions):
            configuration, dataset = configured(*FAMILIES[family], f"trainer.precision={precision}")
            trainer = trainer_of(configuration, dataset, Path(folder), device=CPU)
            trainer.state.initialize()
            if way == COMPILED:
                compile_networks(trainer.model)
            steps[f"{way} {precision}"] = _step_of(trainer)
        for number in threads:  # each number of threads is compiled for itself
            torch.set_num_threads(number)
            for kind, step in steps.items():
                # The CPU seconds of this process and of its children that have ended.
                first[f"{kind} {number}"] = timed(step, 1, lambda: sum(os.times()[:4]))
                timed(step, 2)
        start = time.perf_counter()
        while not times or time.perf_counter() - start < seconds * len(first):
            for number in threads:
                torch.set_num_threads(number)
                clock = time.process_time if is_quiet and number == 1 else time.perf_counter
                for kind, step in steps.items():
                    timed(step, 1)
                    name = f"{kind} {number}"
                    count = max(1, round(0.3 / min(times[name]))) if name in times else 1
                    times.setdefault(name, []).append(timed(step, count, clock))
    chosen = resolved("auto", CPU)
    default_precision = chosen if chosen in precisions else precisions[0]
    chosen_threads = configuration.num_threads
    if chosen_threads == "auto":
        chosen_threads = threads_for(default_precision, CPU)
    num_threads = min(chosen_threads or max(threads), max(threads))
    a_step = {name: min(values) if is_quiet else statistics.median(values) for name, values in times.items()}
    compilation = {name: first[name] - a_step[name] if name.startswith(COMPILED) else 0.0 for name in a_step}
    found = {f"{name} ms": value * 1e3 for name, value in a_step.items()}
    found |= {f"{name} s": value for name, value in compilation.items() if value}
    for factor in (0.1, 1, 10):
        settings = replace(trainer.settings, num_steps=round(trainer.settings.num_steps * factor), compile="auto")
        chooses, _ = choice(trainer.model, settings, CPU, num_ranks=1, missing=None)
        runs = {name: compilation[name] + value * settings.num_steps for name, value in a_step.items()}
        default = f"{COMPILED if chooses and COMPILED in ways else EAGER} {default_precision} {num_threads}"
        best = min(runs, key=runs.__getitem__)
        found[f"{settings.num_steps} steps {default}, best {best}"] = runs[default] / runs[best]
    return found


def _step_of(trainer: Any) -> Callable[[], None]:
    def step() -> None:
        trainer._training_step()
        trainer.metrics.take()
        trainer.step += 1

    return step


def timed(step: Callable[[], None], count: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of a step by a clock."""
    start = clock()
    for _ in range(count):
        step()
    return (clock() - start) / count


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processes counting."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"some of {', '.join(FAMILIES)}")
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ways", nargs="+", choices=[EAGER, COMPILED], default=[EAGER, COMPILED])
    parser.add_argument("--precisions", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--cold", action="store_true", help="compile into an empty cache")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.families) - set(FAMILIES):
        parser.error(f"FAMILY must be some of {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}")
    if arguments.child:
        keep_freed_memory()
        register_resolvers()
        (family,) = arguments.families
        kinds = {"ways": arguments.ways, "precisions": arguments.precisions, "is_quiet": not arguments.busy}
        print(json.dumps(measured(family, arguments.seconds, arguments.threads, **kinds)))
        return
    options = ["--busy", str(arguments.busy), "--seconds", str(arguments.seconds)]
    options += ["--threads", *map(str, arguments.threads), "--ways", *arguments.ways]
    options += ["--precisions", *arguments.precisions]
    program = [sys.executable, "-W", "ignore", "-m", "benchmarks.defaults", "--child"]
    with busy(arguments.busy):
        for family in arguments.families or FAMILIES:
            with tempfile.TemporaryDirectory() as cache:
                variables = {**SPIN_SETTINGS, **os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
                variables |= {"TORCHINDUCTOR_CACHE_DIR": cache} if arguments.cold else {}
                line = [*program, family, *options]
                done = subprocess.run(line, env=variables, stdout=subprocess.PIPE, check=True, text=True)
            values = [f"{name} {value:.4g}" for name, value in json.loads(done.stdout.splitlines()[-1]).items()]
            print(f"{family}: {'; '.join(values)}; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
