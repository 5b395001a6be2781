"""Pages of docs/ whose code is run as a reader types it."""

import doctest
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def run_code_of(name: str) -> int:
    """Run the examples of a page in one namespace, compare what they print, and return their number."""
    page = (DOCS / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("```") // 2  # no block goes unseen
    examples = [doctest.DocTestParser().get_examples(block) for block in blocks]
    assert all(examples)
    test = doctest.DocTest([example for block in examples for example in block], {}, name, None, 0, None)
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert results.failed == 0, "".join(report)
    return results.attempted
