"""``python -m genlab``."""

import os
import sys

# With -m Python searches the working directory first, where a file such as inspect.py would take the place of Python's
# own. The command `genlab` does not, nor do the processes that it starts. Even pathlib may be such a file.
_HERE = os.getcwd()  # noqa: PTH109
if sys.path[0] == _HERE and not sys.flags.safe_path:
    if os.path.dirname(os.path.dirname(__file__)) == _HERE:  # noqa: PTH120
        # A clone that is not installed: the processes that are started from it must find it too.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_HERE, os.environ.get("PYTHONPATH"))))
    else:
        del sys.path[0]

from genlab.cli import main  # noqa: E402 - from the path above

raise SystemExit(main())
