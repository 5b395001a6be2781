"""Composition by Hydra before the run, with one-line error messages that name the nearest valid name.

Most of what depends on Hydra's internals is here and in :mod:`genlab.config.loader`: its public ``compose`` takes no
``--config-dir`` and lists no groups.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import yaml  # type: ignore[import-untyped]
from hydra import __version__ as hydra_version
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from genlab.config.fields import join
from genlab.config.loader import Loader
from genlab.config.location import config_directory
from genlab.config.suggestions import fixed_on_resume, misplaced, missing_brackets, suggestion, unknown_key
from genlab.errors import ConfigurationError
from genlab.paths import expanded, from_here
from genlab.printing import one_line, shown

# A DictConfig, whose deprecated base classes the type checks of the tests complain about.
Composed: TypeAlias = Any

MODE = "hydra.mode"
SWEEP_NODE = "sweep"
"""Node of the settings that compare the runs of a sweep; not part of a run's configuration."""
# Of a command; Hydra does not count an empty list among the choices.
_GROUPS_OF_LISTS = {"train": ("technique", "observer", "logger"), "check": ("technique",), "evaluate": ("measure",)}
OF_TRAINING = ("dataset", "optimizer", "quality", "recipe", "schedule", "trainer")
"""Nodes that the files of models bring into the composition of `genlab check`, which does without them."""
# Below every option of the group: in place of one it would only switch the recipe off.
_NO_OPTION = {"trainer": "base"}
GLOBAL_GROUPS = ("experiment", "recipe")
_NOT_OVERRIDABLE = re.compile(r"Could not override '([^']+)'")
_SEVERAL_VALUES = re.compile(r"Ambiguous value for argument '([^=]+)=([^']*)'")
_KEY_OF_ERROR = re.compile(r"full_key: (\S+)")


def version_base() -> dict[str, str]:
    """Return the argument that Hydra 1.3 needs and later versions warn about."""
    major, minor = hydra_version.split(".")[:2]
    return {"version_base": "1.3"} if (int(major), int(minor)) < (1, 4) else {}


class Composer:
    """The configuration tree of one command: ours, then the user's ``--config-dir``."""

    def __init__(self, hydra: Hydra, command: str, config_name: str) -> None:
        self._hydra = hydra
        self._command = command
        self._config_name = config_name
        self._lists = _GROUPS_OF_LISTS.get(command, ())

    def options(self, group: str, overrides: Sequence[str] = ()) -> list[str]:
        """Return the options of a group, including those in folders that overrides add to the search path."""
        loader = self._hydra.config_loader
        found = loader.get_group_options(group, config_name=self._config_name, overrides=list(overrides))
        return sorted({*found} - {_NO_OPTION.get(group)})

    def keys(self) -> list[str]:
        """Return the keys and groups of the default configuration, without those of Hydra."""
        composed = self._compose([])
        groups = [str(group) for group in composed.hydra.runtime.choices if not str(group).startswith("hydra")]
        return [*dotted_keys(unresolved(composed)), *groups, *self.groups_of_lists()]

    def groups_of_lists(self) -> list[str]:
        """Return the groups of which the command takes several options."""
        return [group for group in self._lists if self.options(group)]

    def compose(self, overrides: Sequence[str], *, is_sweep: bool = False) -> Composed:
        """Return the configuration with its ``hydra`` node, interpolations not yet resolved.

        Raises:
            ConfigurationError: Something does not exist or does not fit.
        """
        parsed = parse_overrides(overrides)
        if fault := next(filter(None, map(self._misplaced, parsed)), None):
            raise ConfigurationError(fixed_on_resume([override.key_or_group for override in parsed]) or fault)
        try:
            composed = self._compose(overrides, is_sweep=is_sweep)
        except (HydraException, OmegaConfBaseException, AttributeError) as error:  # the last where a node was empty
            chosen = {
                argument: override
                for argument, override in zip(overrides, parsed, strict=True)
                if self.options(override.key_or_group) and not override.is_sweep_override()
            }
            fixed = fixed_on_resume([override.key_or_group for override in parsed])
            raise ConfigurationError(fixed or self.other_model(parsed) or self._explain(error, chosen)) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"a configuration file is not plain YAML: {one_line(str(error))}") from error
        except ValueError as error:  # a number, true or false in the place of an option
            for override in parsed:
                options = self.options(override.key_or_group)
                if options and not isinstance(override.value(), str | list):
                    got = shown(override.value())
                    text = f"{override.key_or_group} must be one of {', '.join(options)}, got {got}"
                    raise ConfigurationError(text) from error
            raise
        self._require_options(parsed, composed.hydra.runtime.choices)
        self._require_package_lines(composed)
        return composed

    def other_model(self, overrides: Sequence[Override]) -> str | None:
        """Return why an experiment and another model than its own may not fit; None without the two."""
        chosen = {override.key_or_group: override.value() for override in overrides if not override.is_sweep_override()}
        experiment, model = chosen.get("experiment"), chosen.get("model")
        if not isinstance(experiment, str) or model not in self.options("model"):
            return None
        try:
            own = self._compose([f"experiment={experiment}"]).hydra.runtime.choices.model
        except HydraException:  # the experiment itself is the fault
            return None
        is_own = own == model
        return None if is_own else f"experiment={experiment} is of model={own}, got model={model}; omit one of them"

    def asks_for_sweep(self, overrides: Sequence[str]) -> bool:
        """Return True if ``hydra.mode`` of the overrides asks for a sweep, as ``-m`` does.

        Raises:
            ConfigurationError: Something does not exist or does not fit.
        """
        parsed = parse_overrides(overrides)
        if not any(override.is_sweep_override() or override.key_or_group == MODE for override in parsed):
            return False  # else a chosen configuration may ask for it
        return bool(self.compose(overrides, is_sweep=True).hydra.mode == RunMode.MULTIRUN)

    def with_value(self, composed: Composed, override: Override) -> Composed:
        """Return a composed configuration with another plain value, without a further composition.

        Args:
            composed: Of overrides that set the same key.
            override: Of a key that chooses no option of a group.
        """
        changed = copy.deepcopy(composed)
        OmegaConf.update(changed, override.key_or_group, override.value(), force_add=True)
        return changed

    def run(self, overrides: Sequence[str], job: Callable[[Composed], None], *, folder: Path | None) -> None:
        """Let Hydra run a job; its exceptions come through as they are.

        Args:
            overrides: Of the command line.
            job: To call with the composed configuration.
            folder: Of the run, where there is one; it replaces hydra.run.dir.
        """
        composed = self._compose(overrides)
        OmegaConf.set_readonly(composed.hydra, False)  # as Hydra expects what it composes
        if folder is not None:
            composed.hydra.run.dir = str(folder)
        self._hydra.run(config_name=self._config_name, task_function=job, overrides=list(overrides))

    def run_sweep(self, overrides: Sequence[str], job: Callable[[Composed], None]) -> None:
        """Let Hydra run all jobs of a sweep; their exceptions come through as they are.

        Args:
            overrides: Of the command line.
            job: To call with each composed configuration.
        """
        self._hydra.multirun(config_name=self._config_name, task_function=job, overrides=list(overrides))

    def _compose(self, overrides: Sequence[str], *, is_sweep: bool = False) -> Composed:
        return self._hydra.compose_config(
            config_name=self._config_name,
            overrides=list(overrides),
            run_mode=RunMode.MULTIRUN if is_sweep else RunMode.RUN,
        )

    def _misplaced(self, override: Override) -> str | None:
        """Return why a value belongs to another key, which chooses an option of a group; None if it does not."""
        key = override.key_or_group
        if override.is_delete() or override.is_sweep_override():
            return None
        value, group = override.value(), key.replace(".", "/")
        # The options take Hydra some time, and are asked for where they are needed.
        is_asked = (group != key or isinstance(value, list)) and (config_directory() / group).is_dir()
        options = self.options(group) if is_asked else []
        return misplaced(key, value, options, takes_several=key in self._lists or group != key)

    def _require_options(self, overrides: Sequence[Override], choices: Mapping[str, Any]) -> None:
        """Refuse a missing option of an optional group such as `experiment=`, which Hydra accepts silently."""
        searched = [str(override.input_line) for override in overrides if override.key_or_group == "hydra.searchpath"]
        for override in overrides:
            group = override.key_or_group
            if group in choices and not override.is_delete():
                options = self.options(group, searched)
                for value in _option_names(override):
                    if isinstance(value, str) and value not in options:
                        tail = suggestion(value, options, kind="options")
                        raise ConfigurationError(f"{group} has no option '{value}'; {tail}")

    def _require_package_lines(self, composed: Composed) -> None:
        """Refuse an option without the package line of its group, whose keys would get the group's name as a prefix."""
        for group, option in composed.hydra.runtime.choices.items():
            if group in GLOBAL_GROUPS and group in composed:
                raise ConfigurationError(
                    f"{group}/{option}.yaml must begin with the line '# @package _global_', without which its keys "
                    f"stand below {group}"
                )

    def _explain(self, error: Exception, chosen: Mapping[str, Override]) -> str:
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            missing = str(error.missing_cfg_file)
            group, _, option = missing.rpartition("/")
            for override in chosen.values():  # a path in the place of a name, which has slashes of its own
                for name in _option_names(override):
                    if missing == f"{override.key_or_group}/{name}":
                        group, option = override.key_or_group, str(name)
            # Of a list of options Hydra itself does not tell which there are.
            options = error.options or (self.options(group) if group else [])
            if options := [name for name in options if name != _NO_OPTION.get(group)]:
                return f"{group} has no option '{option}'; {suggestion(option, options, kind='options')}"
        text = one_line(str(error))
        if several := _SEVERAL_VALUES.search(text):
            key, values = several.groups()
            # A number or a text, unlike an absent value, is no place for a list.
            is_single = isinstance(OmegaConf.select(self._compose([]), key), int | float | str)
            as_list = "" if is_single else f", or write [{values}] for a list"
            return f"{key} has several values, got {values}; add -m for a run of each{as_list}"
        unknown = _NOT_OVERRIDABLE.search(text)
        if unknown:
            return self._explain_unknown_key(unknown.group(1), chosen)
        return text.partition(" Config search path:")[0]

    def _explain_unknown_key(self, key: str, chosen: Mapping[str, Override]) -> str:
        default = self._compose([])
        lists = self.groups_of_lists()
        own_groups = [*default.hydra.runtime.choices, *lists]
        arguments = [
            argument
            for argument, override in chosen.items()
            if override.key_or_group != key and ("/" in override.key_or_group or override.key_or_group in own_groups)
        ]
        composed = self._compose(arguments)
        with_hydra = key.startswith("hydra")
        shown = composed if with_hydra else _without(composed, "hydra")
        keys = list(dotted_keys(OmegaConf.to_container(shown, resolve=False)))
        # Groups of other commands are no keys of this one.
        groups = [
            str(group) for group in composed.hydra.runtime.choices if str(group).startswith("hydra") == with_hydra
        ]
        groups += [] if with_hydra else lists
        if self._command == "check":
            keys, groups = ([it for it in names if it.partition(".")[0] not in OF_TRAINING] for names in (keys, groups))
        whole = key.partition("/")[0]
        if whole != key and self.options(key):  # a part that other models have
            parts = ", ".join(sorted(group for group in groups if group.startswith(f"{whole}/"))) or "none"
            return f"{whole}={composed.hydra.runtime.choices[whole]} has no {key}; its parts: {parts}"
        if key in self._lists:
            return f"{key} has no options of genlab's own; name the folder of yours: --config-dir FOLDER"
        command = f"genlab {self._command}"
        return unknown_key(key, keys, groups, command=command, choices=composed.hydra.runtime.choices)


@contextmanager
def open_composer(command: str, *, config_dir: str | None, config_name: str | None = None) -> Iterator[Composer]:
    """Yield a composer for a command.

    Raises:
        ConfigurationError: ``--config-dir`` is not a folder.
    """
    search_path = create_config_search_path(str(config_directory()))
    if config_dir is not None:
        own = Path(expanded(config_dir, "--config-dir")).absolute()
        if not own.is_dir():
            raise ConfigurationError(f"--config-dir must be a folder, got {own}")
        search_path.prepend(
            provider="command-line", path=f"file://{own}", anchor=SearchPathQuery(provider="schema", path=None)
        )
    GlobalHydra.instance().clear()
    if base := version_base():
        version.setbase(base["version_base"])
    try:
        hydra = Hydra(task_name=command, config_loader=Loader(search_path))
        GlobalHydra.instance().initialize(hydra)
        yield Composer(hydra, command, config_name or command)
    finally:
        GlobalHydra.instance().clear()


def tree_options() -> list[str]:
    """Return the options of the running job's command line that choose its configuration tree."""
    config = HydraConfig.get()
    options = []
    if config.job.config_name != config.job.name:
        options += ["--config-name", str(config.job.config_name)]
    for source in config.runtime.config_sources:
        if source.provider == "command-line":
            options += ["--config-dir", str(from_here(Path(source.path)))]
    return options


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as parsed by Hydra.

    Raises:
        ConfigurationError: An override is not of the form key=value.
    """
    # With a tree at hand, so that what group=glob(pattern) means can be listed.
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    parsed = []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except (HydraException, OverrideParseException) as error:
            raise ConfigurationError(_explain_grammar(override)) from error
    return parsed


def _option_names(override: Override) -> list[Any]:
    """Return the options that an override of a group names: several in a sweep or a list."""
    if override.is_sweep_override():
        return list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    value = override.value()
    return list(value) if isinstance(value, list) else [value]


def plain(configuration: Composed) -> dict[str, Any]:
    """Return the job's part of a composed configuration as resolved plain data, without Hydra's and the sweep's nodes.

    Raises:
        ConfigurationError: A mandatory value is missing or an interpolation cannot be resolved.
    """
    job = _without(configuration, "hydra", SWEEP_NODE)
    try:
        content = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = _KEY_OF_ERROR.search(str(error))
        name = key.group(1) if key else "a mandatory key"
        raise ConfigurationError(f"{name} must be given: add {name}=...") from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(one_line(str(error))) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def unresolved(configuration: Composed) -> dict[str, Any]:
    """Return a composed configuration as plain data without Hydra's node, interpolations as they are written."""
    content = OmegaConf.to_container(_without(configuration, "hydra"), resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _without(configuration: Composed, *nodes: str) -> Composed:
    """Return a copy of a composed configuration without some of its nodes."""
    return OmegaConf.masked_copy(configuration, [key for key in configuration if key not in nodes])


def select_resolved(configuration: Composed, key: str) -> Any:
    """Return one resolved value of a composed configuration, such as ``hydra.run.dir``."""
    HydraConfig.instance().set_config(configuration)
    return OmegaConf.select(configuration, key)


def dotted_keys(node: Any, parent: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys of plain nested data, including inner nodes."""
    if isinstance(node, dict):
        for name, value in node.items():
            key = join(parent, str(name))
            yield key
            yield from dotted_keys(value, key)


def quoted(text: str) -> str:
    """Return any text quoted as the value of an override."""
    return QuotedString(text, Quote.single).with_quotes()


def _explain_grammar(override: str) -> str:
    key, separator, value = override.partition("=")
    if not separator:
        return f"an override must be key=value, got '{override}'"
    if missing := missing_brackets(value):
        return f"{key} lacks {missing} at its end, got {value}; did you mean '{key}={value}{missing}'?"
    hint = f"quote it: \"{key}='{value}'\""
    if value.startswith("(") and value.endswith(")"):
        hint = f"a list is '{key}=[{value[1:-1]}]'"
    return f"{key} must have a value that Hydra can read, got {value}; {hint}"
