"""``python -m genlab``."""

import os
import sys

# With -m Python searches the working directory first, where a file such as inspect.py would take the place of Python's
# own. The command `genlab` does not, nor do the processes that it starts. Even pathlib may be such a file.
if not sys.flags.safe_path:
    _here = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(__file__)) == _here:  # noqa: PTH120
        # A clone that is not installed: this process and those that it starts must find it.
        sys.path.insert(0, _here)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_here, os.environ.get("PYTHONPATH"))))

from genlab.cli import main

raise SystemExit(main())
