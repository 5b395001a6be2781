"""`genlab experiments`: every option of ``experiment=`` with its title and its cost; or one in full."""

import re
from contextlib import suppress

from genlab.comparison.published import read_experiment
from genlab.config.catalogue import NamedSettings, files_of, headline
from genlab.config.fields import reader_of
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.tables import described

_DETAILS = re.compile(r"[;(]|, | beside ")

read = reader_of(NamedSettings)


def run(settings: NamedSettings, context: JobContext) -> None:
    """Print one line for each experiment, or one experiment in full.

    Raises:
        ConfigurationError: There is no such experiment, or its header is incomplete.
    """
    if settings.name is not None:
        from genlab.comparison.presets import experiment_in_full  # it brings torch, which the list does without

        print(experiment_in_full(settings.name, context.config_folders))
        return
    rows = []
    for name, path in files_of("experiment", context.config_folders).items():
        line = headline(path)
        with suppress(ConfigurationError):  # an experiment of the user's own may have no header
            line += f" Cost: {_DETAILS.split(read_experiment(path).cost)[0].strip()}."
        rows.append((name, line))
    print(described(rows, indent=""))
