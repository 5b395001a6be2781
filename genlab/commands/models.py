"""`genlab models`: every option of ``model=``, ours and the user's, with a sentence of its file; or one in full."""

from genlab.config.catalogue import NamedSettings, options_of
from genlab.config.fields import reader_of
from genlab.launch.contract import JobContext
from genlab.tables import described

read = reader_of(NamedSettings)


def run(settings: NamedSettings, context: JobContext) -> None:
    """Print one line for each model, or one model in full.

    Raises:
        ConfigurationError: There is no such model.
    """
    if settings.name is None:
        print(described(options_of("model", context.config_folders).items(), indent=""))
        return
    from genlab.comparison.presets import model_in_full  # it brings torch, which the list does without

    print(model_in_full(settings.name, context.config_folders))
