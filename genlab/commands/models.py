"""`genlab models`: every option of ``model=``, ours and the user's, with the first line of its file; or one in full."""

from genlab.config.catalogue import NamedSettings, describe_options, read_name
from genlab.launch.contract import JobContext

read = read_name


def run(settings: NamedSettings, context: JobContext) -> None:
    """Print one line for each model, or one model in full.

    Raises:
        ConfigurationError: There is no such model.
    """
    if settings.name is None:
        for line in describe_options("model", context.config_folders):
            print(line)
        return
    from genlab.comparison.presets import model_in_full  # it brings torch, which the list does without

    print(model_in_full(settings.name, context.config_folders))
