"""A row of the table of `make bench`: what a program measured, kept where the parent process reads it."""

import json
import os
from pathlib import Path

VARIABLE = "GENLAB_BENCH_ROWS"


def keep_row(
    work: str, baseline: float, ours: float, *, must: float, aim: float | None = None, lower_is_better: bool = False
) -> None:
    """Keep one row where a parent asked for it; do nothing in a program that was started by itself.

    Args:
        work: Its name in the table.
        baseline: Seconds of the straightforward way.
        ours: Seconds of genlab.
        must: Ratio that is asked for, baseline / ours; with lower_is_better ours / baseline, at most.
        aim: The ambitious one.
        lower_is_better: True for an overhead.
    """
    if VARIABLE not in os.environ:
        return
    ratio = ours / baseline if lower_is_better else baseline / ours
    row = {"work": work, "baseline": baseline, "ours": ours, "ratio": ratio, "must": must, "aim": aim}
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "at_most": lower_is_better}) + "\n")
