"""Suggestions for a command line that Hydra cannot parse: unknown flags, and arguments without a key.

Only a refused command line is examined, so nothing here changes the meaning of a valid one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from genlab.config.compose import Composer
from genlab.config.suggestions import missing_brackets, nearest, nearest_key, spelled_elsewhere
from genlab.errors import ConfigurationError
from genlab.run.names import CONFIG_NAME

# Config groups in which an argument without a key is looked up, the most common ones first.
_GROUPS = ("model", "dataset", "experiment", "optimizer", "trainer", "schedule", "technique", "recipe")


class UnknownFlagError(ConfigurationError):
    """An argument that begins like an option but is not one.

    Args:
        argument: As typed.
        value: The next argument; None if that is another option or setting.
        flags: The valid options.
    """

    def __init__(self, argument: str, value: str | None, flags: Sequence[str]) -> None:
        super().__init__(f"{argument} is not an option")
        self.argument, _, given = argument.partition("=")
        self.value = given or value
        self.flags = flags

    def advised(self, composer: Composer, command: str) -> ConfigurationError:
        """Return the error with a suggestion: a setting of another tool's name, or the nearest option or setting."""
        name = self.argument.lstrip("-").replace("-", "_")
        keys = composer.keys()
        key = _exactly(name, keys) or spelled_elsewhere(name, keys)
        key = key or nearest(self.argument, self.flags) or nearest_key(name, keys)
        text = f"{self} of genlab {command}, whose settings are written key=value"
        if key is None:
            return ConfigurationError(f"{text}; genlab {command} --help lists them")
        meant = key if key.startswith("-") or "=" in key else f"{key}={self.value or '...'}"
        return ConfigurationError(f"{text}; did you mean '{meant}'?")


def require_settings(overrides: Sequence[str], composer: Composer, command: str) -> None:
    """Refuse arguments that are not settings, and suggest the command line that was probably meant.

    Raises:
        ConfigurationError: There is an argument without ``=``.
    """
    bare = [
        argument for argument in overrides if "=" not in argument.removeprefix("=") and not argument.startswith("~")
    ]
    if not bare:
        return
    text = f"an override must be key=value, got '{bare[0]}'"
    if bare[0] == "help":
        raise ConfigurationError(f"{text}; did you mean 'genlab {command} --help'?")
    meant = list(_meant(overrides, composer))
    changed = [argument for argument in meant if argument is not None and argument not in overrides]
    if None in meant or not changed:
        guess = next((found for argument in bare if (found := _as_setting(argument, composer, is_exact=False))), None)
        changed = [] if guess is None else [guess]
    raise ConfigurationError(f"{text}; did you mean '{' '.join(changed)}'?" if changed else text)


def _meant(arguments: Sequence[str], composer: Composer) -> Iterator[str | None]:
    """Yield the arguments joined and with keys; None for an argument without a meaning."""
    remaining = list(arguments)
    keys = composer.keys()
    while remaining:
        argument = remaining.pop(0)
        if remaining and remaining[0] == "=":  # model = draw
            remaining.pop(0)
            argument += "="
        if argument.endswith("=") and remaining and "=" not in remaining[0]:
            yield argument + remaining.pop(0)
        elif "=" in argument and missing_brackets(argument):  # a list with spaces in it, which the shell has split
            while missing_brackets(argument) and remaining:
                argument += f" {remaining.pop(0)}"
            yield f'"{argument}"'
        elif "=" in argument or argument.startswith("~"):
            yield argument
        elif (
            remaining
            and "=" not in remaining[0]
            and (key := _exactly(argument, keys) or spelled_elsewhere(argument, keys))
        ):
            yield f"{key}={remaining.pop(0)}"
        else:
            yield _as_setting(argument, composer, is_exact=True) or (f"{argument}=..." if argument in keys else None)


def _as_setting(argument: str, composer: Composer, *, is_exact: bool) -> str | None:
    """Return the setting that the name of an option or the folder of a run stands for."""
    if (Path(argument) / CONFIG_NAME).is_file():
        return f"resume={argument}"
    for group in _GROUPS:
        options = composer.options(group)
        found = nearest(argument, options)
        if found is not None and (not is_exact or argument.casefold() == found.casefold()):
            return f"{group}=[{found}]" if group == "technique" else f"{group}={found}"
    return None


def _exactly(name: str, keys: Sequence[str]) -> str | None:
    """Return the only key of this name, or the only one whose last part has it."""
    if name in keys:
        return name
    found = [key for key in keys if key.rpartition(".")[2] == name and "/" not in key]
    return found[0] if len(found) == 1 else None
