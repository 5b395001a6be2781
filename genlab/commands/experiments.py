"""`genlab experiments`: every option of ``experiment=`` with the first line of its file; or one in full."""

from genlab.config.catalogue import NamedSettings, describe_options, read_name
from genlab.launch.contract import JobContext

read = read_name


def run(settings: NamedSettings, context: JobContext) -> None:
    """Print one line for each experiment, or one experiment in full.

    Raises:
        ConfigurationError: There is no such experiment, or its header is incomplete.
    """
    if settings.name is None:
        for line in describe_options("experiment", context.config_folders):
            print(line)
        return
    from genlab.comparison.presets import experiment_in_full  # it brings torch, which the list does without

    print(experiment_in_full(settings.name, context.config_folders))
