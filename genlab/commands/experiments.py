"""`genlab experiments`: every option of ``experiment=`` with the first sentence of its file; or one in full."""

from genlab.config.catalogue import NamedSettings, options_of, read_name
from genlab.launch.contract import JobContext
from genlab.tables import described

read = read_name


def run(settings: NamedSettings, context: JobContext) -> None:
    """Print one line for each experiment, or one experiment in full.

    Raises:
        ConfigurationError: There is no such experiment, or its header is incomplete.
    """
    if settings.name is None:
        print(described(list(options_of("experiment", context.config_folders).items()), indent=""))
        return
    from genlab.comparison.presets import experiment_in_full  # it brings torch, which the list does without

    print(experiment_in_full(settings.name, context.config_folders))
