"""Every YAML of the tree composes and binds to the signatures of what it names."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from benchmarks.composed import values_of
from genlab.config.build import bind
from genlab.config.catalogue import options_of, with_inherited
from genlab.config.location import config_directory
from genlab.config.naming import register_resolvers
from genlab.config.schema import bind_optimizer, bind_schedule, optimizer_node, read_run_configuration
from tests.conftest import Genlab

GROUPS = ("dataset", "experiment", "logger", "model", "optimizer", "recipe", "schedule", "trainer")


def options(group: str) -> list[str]:
    stems = {path.stem for path in (config_directory() / group).glob("*.yaml")}
    return sorted(stems - {"base"} if group == "trainer" else stems)  # what the others begin with is no option


@pytest.fixture(scope="module", autouse=True)
def resolvers() -> None:
    register_resolvers()


def test_the_lists_of_models_data_sets_and_experiments_show_whole_sentences() -> None:
    for group in ("dataset", "experiment", "model"):
        shown = options_of(group, [config_directory()])
        assert {name: text for name, text in shown.items() if not text.endswith(".")} == {}
    assert shown["pixelcnn_pp"].count(". ") == 2, "of 'et al. 2017', and before the objective"


OBJECTIVES = {
    "hinge": "hinges",
    "least_squares": "least squares",
    "non_saturating": "the non-saturating loss",
    "relativistic": "the relativistic loss",
    "wasserstein": "the Wasserstein distance",
}


def test_the_list_of_models_says_the_objective_and_whether_labels_are_needed() -> None:
    for name, text in options_of("model", [config_directory()]).items():
        files = with_inherited(config_directory() / "model" / f"{name}.yaml")
        choices = dict(
            re.findall(r"^  - (?:override )?(objective|conditioning): (\w+)", files_text(files), re.MULTILINE)
        )
        learns_classes = choices.get("conditioning") == "class_prediction"
        if choices and not learns_classes:
            assert f"Objective: {OBJECTIVES[choices['objective']]}" in text, name
        takes_labels = choices.get("conditioning", "none") not in ("none", "hidden_codes") or "classifier" in name
        assert "Objective: " in text, name
        assert ("labels." in text.partition("Needs: ")[2]) == takes_labels, name


def files_text(paths: list[Path]) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.slow
def test_every_option_of_every_group_composes_and_binds() -> None:
    seen = 0
    for group in GROUPS:
        names = options(group)
        for name in names:
            choice = [f"{group}={name}"]
            if group == "dataset" and name == "folder":
                choice.append("dataset.root=somewhere")
            values = values_of(*choice)
            read_run_configuration(values)
            seen += 1
        assert names, group
    files = [path for path in config_directory().rglob("*.yaml") if path.parent.name in GROUPS]
    top_level = [path for path in files if path.parent.parent == config_directory()]
    assert seen + 1 == len(top_level) >= 30  # trainer/base.yaml


def test_precision_is_what_the_hardware_has_but_for_publications() -> None:
    """A machine without bfloat16 instructions would be 5 to 14 times slower with it."""
    found = {}
    for path in config_directory().rglob("*.yaml"):
        for value in re.findall(r"precision: *(\w+)", path.read_text(encoding="utf-8")):
            found[path.relative_to(config_directory()).as_posix()] = value
    assert found == {"trainer/base.yaml": "auto", "trainer/paper.yaml": "float32"}


def test_no_option_of_a_run_sets_anything_of_hydra() -> None:
    """A sweep over our own options needs no look at each of their combinations."""
    folders = [path for path in config_directory().iterdir() if path.is_dir() and path.name != "hydra"]
    files = [path for folder in folders for path in folder.rglob("*.yaml")]
    assert len(files) > 100
    assert [path for path in files if "hydra" in path.read_text(encoding="utf-8").lower()] == []


@pytest.mark.slow
def test_every_part_of_a_model_binds() -> None:
    parts = {
        path.relative_to(config_directory()).with_suffix("") for path in (config_directory() / "model").glob("*/*.yaml")
    }
    assert len(parts) >= 20
    for part in parts:
        model = "draw" if part.parent.name == "observation" else "gan"
        read_run_configuration(values_of(f"model={model}", f"{part.parent.as_posix()}={part.name}"))


def test_every_technique_binds() -> None:
    names = options("technique")
    assert len(names) >= 9
    values = values_of("model=gan", f"technique=[{','.join(names)}]")
    read_run_configuration(values)
    assert set(OmegaConf.select(OmegaConf.create(values), "model.techniques")) == set(names)


def test_every_other_target_of_the_tree_is_inside_a_group_seen_above() -> None:
    outside = {
        path.relative_to(config_directory()).parts[0]
        for path in config_directory().rglob("*.yaml")
        if "_target_" in path.read_text(encoding="utf-8")
    }
    assert outside <= {*GROUPS, "technique", "hydra"}


def test_every_launcher_and_sweeper_of_the_tree_is_a_plugin_that_takes_its_keys() -> None:
    pytest.importorskip("submitit")
    from hydra.core.plugins import Plugins
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

    paths = sorted((config_directory() / "hydra").glob("launcher/*.yaml"))
    paths += sorted((config_directory() / "hydra").glob("sweeper/*.yaml"))
    nodes = {path.stem: OmegaConf.to_container(OmegaConf.load(path), resolve=False) for path in paths}
    assert set(nodes) == {"local", "slurm", "slurm_rehearsal", "tpe"}
    known = {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover()}
    assert {node["_target_"] for node in nodes.values()} <= known
    # The plugins take any keyword; what submitit understands stands in their schemas.
    for name, schema in (("slurm", SlurmQueueConf), ("slurm_rehearsal", LocalQueueConf)):
        OmegaConf.merge(OmegaConf.structured(schema), nodes[name])


def test_a_trainer_wins_over_the_recipe_which_wins_over_the_base() -> None:
    def steps(*overrides: str) -> object:
        return OmegaConf.select(OmegaConf.create(values_of(*overrides)), "trainer.num_steps")

    base, recipe, smoke = steps("recipe=none"), steps(), steps("trainer=smoke")
    assert len({base, recipe, smoke}) == 3
    assert steps("trainer=smoke", "trainer.num_steps=7") == 7


def test_every_model_names_a_recipe_and_every_recipe_is_named() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (config_directory() / "model").glob("*.yaml")]
    named = [re.findall(r"^  - override /recipe@_global_.recipe: (\w+)$", text, re.MULTILINE) for text in texts]
    assert all(len(names) == 1 for names in named)
    recipes = set(options("recipe")) - {"none"}
    assert {name for [name] in named} == recipes
    for recipe in recipes:  # what depends on the optimizer stands in a file of its name
        file = config_directory() / "recipe" / f"{recipe}.yaml"
        assert set(yaml.safe_load(file.read_text(encoding="utf-8"))) <= {"defaults", "trainer", "num_threads"}
        settings = list((config_directory() / "recipe" / recipe).glob("*.yaml"))
        assert settings
        assert {path.stem for path in settings} <= set(options("optimizer"))


def test_an_empty_list_of_loggers_leaves_none() -> None:
    assert read_run_configuration(values_of("logger=[]")).loggers == {}


@pytest.mark.slow
def test_an_optimizer_that_the_recipe_was_not_made_for_keeps_its_own_numbers() -> None:
    for model in ("dcgan", "infogan"):
        chosen = values_of(f"model={model}", "optimizer=rmsprop")
        read_run_configuration(chosen)
        assert chosen["optimizer"] == values_of("recipe=none", "optimizer=rmsprop")["optimizer"]
        assert chosen["trainer"] == values_of(f"model={model}")["trainer"]
    assert values_of("model=dcgan", "optimizer=adam")["optimizer"]["default"]["betas"] == [0.5, 0.999]
    assert values_of("model=dcgan", "optimizer.default.lr=1")["optimizer"]["default"]["lr"] == 1


def test_a_phase_is_merged_over_the_default_unless_it_names_a_target() -> None:
    optimizers = {
        "default": {"_target_": "torch.optim.Adam", "lr": 1e-3, "eps": 1e-8},
        "discriminator": {"lr": 4e-4},
        "generator": {"_target_": "torch.optim.SGD", "lr": 0.1},
    }
    assert optimizer_node(optimizers, "discriminator") == {**optimizers["default"], "lr": 4e-4}
    assert optimizer_node(optimizers, "generator") == optimizers["generator"]
    assert optimizer_node(optimizers, "other") == optimizers["default"]
    for phase in optimizers:
        bind_optimizer(optimizer_node(optimizers, phase), f"optimizer.{phase}")


def test_the_default_rate_of_two_time_scales_moves_the_generator(genlab: Genlab) -> None:
    outcome = genlab("train", "model=dcgan", "optimizer=ttur", "optimizer.default.lr=1e-3", "--cfg", "job")
    optimizers = yaml.safe_load(outcome.output)["optimizer"]
    assert [float(optimizer_node(optimizers, phase)["lr"]) for phase in ("generator", "discriminator")] == [1e-3, 4e-4]


def test_schedulers_of_torch_stand_beside_ours() -> None:
    bind_schedule({"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 100, "gamma": 0.5})
    bind_schedule({"_target_": "genlab.training.schedules.constant"})


@pytest.mark.slow
def test_every_dataset_names_a_function_that_gives_a_dataset() -> None:
    from genlab.data.dataset import Dataset

    for name in options("dataset"):
        node = values_of(f"dataset={name}", *(["dataset.root=x"] if name == "folder" else []))["dataset"]
        assert bind(node, "dataset", expects=Dataset).target.__module__.startswith("genlab.data")


def test_the_tree_is_found_beside_the_package_and_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import genlab

    for place in ("genlab/configs", "configs"):
        root = tmp_path / place.replace("/", "_")
        (root / place).mkdir(parents=True)
        (root / "genlab").mkdir(exist_ok=True)
        (root / place / "train.yaml").write_text("")
        monkeypatch.setattr(genlab, "__file__", str(root / "genlab" / "__init__.py"))
        assert config_directory() == root / place
