"""A part of a preset that the command line replaces, without what the preset sets for its own."""

import re
from contextlib import nullcontext
from typing import Any

import pytest

from benchmarks.composed import values_of
from genlab.config.parts import with_replaced_parts
from genlab.config.schema import read_run_configuration
from genlab.errors import ConfigurationError
from genlab.run.record import build_model
from genlab.types import ImageSpec
from tests.thinning import thinned

PRESETS = (
    *("wgan_gp", "sngan", "infogan", "projection_gan", "semi_supervised_gan"),
    *("improved_gan", "cgan", "acgan", "r3gan"),
)
NETWORKS = ("mlp", "dcgan", "resnet")
SPEC = ImageSpec(channels=1, height=16, width=16, num_levels=256, num_classes=3)


def node(**arguments: Any) -> dict[str, Any]:
    generator = {"_target_": "genlab.models.gan.mlp.MLPGenerator", "hidden": [8], **arguments}
    return {"model": {"_target_": "genlab.models.gan.gan.GAN", "generator": generator}, "seed": 0}


def test_what_the_new_part_does_not_take_is_left_out_unless_it_was_typed() -> None:
    values = node(weight_std=0.02)
    assert with_replaced_parts(values, ["model=infogan", "model/generator=mlp"]) == node()
    assert with_replaced_parts(values, ["model/generator=mlp", "model.generator.weight_std=0.1"]) == values
    assert with_replaced_parts(values, ["model/generator=mlp", "+model.generator.weight_std.a=0.1"]) == values
    assert with_replaced_parts(values, ["model=infogan", "model/discriminator=mlp"]) == values
    assert with_replaced_parts({"seed": 0}, ["model/generator=mlp"]) == {"seed": 0}


@pytest.mark.parametrize(("preset", "network"), thinned([(preset, net) for preset in PRESETS for net in NETWORKS], 4))
def test_every_preset_takes_other_networks_or_says_what_to_set(preset: str, network: str) -> None:
    overrides = [f"model={preset}", f"model/generator={network}", f"model/discriminator={network}"]
    values = with_replaced_parts(values_of(*overrides), overrides)
    refused = (preset, network) == ("r3gan", "dcgan")  # for its batch normalisation
    with pytest.raises(ConfigurationError, match=r": set model\.") if refused else nullcontext():
        build_model(read_run_configuration(values), SPEC)


MISPLACED = [
    ("model=dcgan model.objective=hinge", "model/objective=hinge"),
    ("model=infogan model.latent=unifrom", "model/latent=uniform"),
    ("model.observation=binomial", "model/observation=binomial"),
    ("model=gan model.techniques=[a,b]", "technique=[a,b]"),
    ("model=gan model.techniques=a", "technique=[a]"),
    ("model=[draw]", "model=draw"),
    ("trainer=[smoke,gpu]", "-m trainer=smoke,gpu"),
]


@pytest.mark.parametrize(("line", "meant"), MISPLACED, ids=[line for line, _ in MISPLACED])
def test_a_value_that_another_key_takes_is_answered_with_that_key(line: str, meant: str) -> None:
    key, _, value = line.split()[-1].partition("=")
    told = re.escape(f", got {value}; did you mean '{meant}'?")
    with pytest.raises(ConfigurationError, match=rf"^{key} must (hold keys and values|be one option){told}$"):
        values_of(*line.split())


def test_a_name_that_no_option_is_near_is_answered_with_the_options() -> None:
    with pytest.raises(ConfigurationError, match="; model/observation=NAME takes one of bernoulli, binomial, "):
        values_of("model.observation=foo")
    with pytest.raises(ConfigurationError, match=r"model\.observation cannot change on resume"):
        values_of("model.observation=binomial", "resume=x")
    assert values_of("model.observation=null")["model"]["observation"] is None
    assert values_of("model=dcgan", "technique=[label_smoothing]")["model"]["techniques"]
