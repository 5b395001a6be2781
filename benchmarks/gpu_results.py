"""The published experiments that minutes of a GPU can finish or advance, in slices that resume from the last one.

    python -m benchmarks.gpu_results --data FOLDER [--minutes 9] [--out outputs/gpu_results] [--only EXPERIMENT ...]
                                     [--restore FOLDER] [--pack FOLDER]

The time is divided among the experiments that are not finished; each is trained by `genlab train` in a process of its
own, or resumed where its run folder is there. `--pack` writes of each run what a later slice needs, on another machine
too, as one archive; `--restore` unpacks such archives first. The report is that of `genlab report`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_MINUTES = 0.4
"""Of a slice, for imports, data and the last checkpoint."""
_PACKED = ("*.yaml", "*.json", "*.jsonl", "*.log", ".hydra/*", "checkpoints/*", "samples/*.gif")

Run = Callable[[Sequence[str], float], int]
"""Carries out `genlab WORDS` within so many seconds, and gives its exit code."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One of the slices.

    Attributes:
        share: Of the time, relative to the others.
        measured_by: Words of `genlab evaluate` for a finished run, beside ``run=``; None where the test is enough.
    """

    share: float
    measured_by: tuple[str, ...] | None = None


EXPERIMENTS: dict[str, Experiment] = {
    "pixelcnn_mnist": Experiment(share=3),
    "draw_mnist": Experiment(share=3),
    "semi_supervised_gan_mnist": Experiment(share=2),
    "dcgan_stacked_mnist": Experiment(share=1, measured_by=("num_generated=26000",)),
}


def advance(
    names: Sequence[str],
    *,
    minutes: float,
    out: Path,
    run: Run,
    overrides: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """Train or resume each experiment for its share of the time.

    Args:
        names: Of :data:`EXPERIMENTS`.
        minutes: For all.
        out: Folder of the run folders, which are named after the experiments.
        run: See :data:`Run`.
        overrides: Further words for a new run, by experiment.

    Returns:
        How each stands: its summary, and the exit code of its slice (None where there was nothing left to do).
    """
    until = time.monotonic() + 60 * minutes
    waiting = [name for name in names if _summary(out / name).get("status") != "finished"]
    found: dict[str, dict[str, Any]] = {name: {"code": None} for name in names}
    while waiting:
        name, *waiting = waiting
        shares = [EXPERIMENTS[other].share for other in (name, *waiting)]
        left = until - time.monotonic()
        seconds = left * shares[0] / sum(shares)
        limit = f"trainer.max_minutes={max(seconds / 60 - START_MINUTES, 1e-4):.4f}"
        folder = out / name
        words = [f"resume={folder}"] if folder.exists() else [f"experiment={name}", f"hydra.run.dir={folder}"]
        own = () if folder.exists() else overrides[name]
        found[name]["code"] = run(["train", *words, *own, limit], seconds + 60)
    for name in names:
        measured_by, folder = EXPERIMENTS[name].measured_by, out / name
        is_due = measured_by is not None and _summary(folder).get("status") == "finished"
        if is_due and not (folder / "evaluated").exists() and until > time.monotonic():
            found[name]["code"] = run(["evaluate", f"run={folder}", *measured_by], until - time.monotonic())
            if found[name]["code"] == 0:
                (folder / "evaluated").touch()
        found[name]["summary"] = _summary(folder)
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the status of each experiment as a Markdown table."""
    lines = ["| experiment | status | step | training time | last validation or test |", "|---|---|---|---|---|"]
    for name, outcome in found.items():
        summary = outcome["summary"]
        status = summary.get("status", "not begun")
        if outcome["code"]:
            status += f" (exit code {outcome['code']})"
        measures = summary.get("test") or {
            tag: value for tag, value in summary.get("final", {}).items() if tag.startswith("validation/")
        }
        shown = ", ".join(f"{tag} {value:.4g}" for tag, value in measures.items() if value is not None)
        minutes = summary.get("seconds", 0) / 60
        lines.append(f"| {name} | {status} | {summary.get('step', 0):,} | {minutes:.1f} min | {shown} |")
    return "\n".join(lines)


def pack(folder: Path, archive: Path) -> None:
    """Write what a run needs to go on and to be reported, with its newest picture."""
    paths = {path for pattern in _PACKED for path in folder.glob(pattern) if path.is_file()}
    paths.update(sorted(folder.glob("samples/step_*.png"))[-1:])
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(paths):
            file.add(path, arcname=str(Path(folder.name) / path.relative_to(folder)))


def restore(archive: Path, out: Path) -> None:
    """Unpack a run that is not there."""
    name = archive.name.removesuffix(".tar.gz")
    if (out / name).exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as file:
        # Python has the argument from 3.11.4 on; `pack` wrote the archive.
        file.extractall(out, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # noqa: S202


def _summary(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def run_in_process_of_its_own(words: Sequence[str], seconds: float) -> int:
    print(f"genlab {' '.join(words)}", flush=True)
    try:
        return subprocess.run([sys.executable, "-m", "genlab", *words], check=False, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return -1


def main(words: Sequence[str] | None = None, *, run: Run = run_in_process_of_its_own) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", type=Path, help="holds MNIST/ and BinarizedMNIST/; nothing is downloaded")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_results"))
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--restore", type=Path, help="archives of runs that go on here")
    parser.add_argument("--pack", type=Path, help="where to write an archive of each run")
    parser.add_argument("--override", action="append", default=[], help="a word for every new run")
    arguments = parser.parse_args(words)
    for archive in sorted(arguments.restore.glob("*.tar.gz")) if arguments.restore else ():
        restore(archive, arguments.out)
    data = [f"dataset.root={arguments.data.absolute()}", "dataset.download=false"] if arguments.data else []
    new = [*data, *arguments.override]
    found = advance(
        arguments.only,
        minutes=arguments.minutes,
        out=arguments.out,
        run=run,
        overrides=dict.fromkeys(arguments.only, new),
    )
    print(table(found))
    if arguments.pack:
        for name in arguments.only:
            if (arguments.out / name).exists():
                pack(arguments.out / name, arguments.pack / f"{name}.tar.gz")
        shutil.copy(_write_table(arguments.out, found), arguments.pack)
    else:
        _write_table(arguments.out, found)
    run(["report", str(arguments.out)], 120)
    return 0 if all(not outcome["code"] for outcome in found.values()) else 1


def _write_table(out: Path, found: Mapping[str, Mapping[str, Any]]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "gpu_results.md"
    path.write_text(table(found) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
