"""Compatibility of objectives, techniques and discriminators, decided from the declarations of each.

A technique declares its properties (:class:`genlab.models.gan.techniques.base.Technique`), an objective computes its
own from its losses, and a network shows them by its layers. A combination is valid if no rule here refuses it; no rule
asks which technique it has. docs/gans.md shows the answers as tables.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrize import is_parametrized

from genlab.models.base import coupling_layer
from genlab.models.gan.networks import DiscriminatorNetwork
from genlab.models.gan.objectives import Objective
from genlab.models.gan.techniques.base import ObjectiveTechnique, Slope, Technique, WeightTechnique

_KEY = "model.techniques"
_WITHOUT_NORMALIZATION = "set model.discriminator.normalization=null"
_NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Remark:
    """A reason for which parts of a GAN exclude each other, or draw a warning."""

    is_refusal: bool
    message: str
    """One line: key, rule and hint."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The parts of a GAN that act on one another."""

    objective: Objective
    """As it was chosen."""
    techniques: Mapping[str, Technique]
    """By name."""
    network: nn.Module
    """Of the discriminator, before its weights are parametrised."""
    num_levels: int
    """Values of a sub-pixel; 2 for binarised images."""
    projects_conditions: bool = False
    """True if the score gains a projection of the conditions on the features."""

    @cached_property
    def game(self) -> Objective:
        """The objective after the changes of the techniques."""
        changing = (part for part in self.techniques.values() if isinstance(part, ObjectiveTechnique))
        return reduce(lambda objective, technique: technique.wrap(objective), changing, self.objective)

    @property
    def normalization(self) -> nn.Module | None:
        """A normalisation layer of the network that uses statistics of the images; None if absent."""
        return next((layer for layer in self.network.modules() if isinstance(layer, _NORMALIZATIONS)), None)

    def with_slope(self, *slopes: Slope) -> list[str]:
        """Return the names of the techniques that declare one of these slopes."""
        return [name for name, technique in self.techniques.items() if technique.slope in slopes]


def remarks(parts: Combination) -> list[Remark]:
    """Return the remarks on a combination, refusals first; empty if it is valid."""
    rules = (
        *(_scores_are_of_single_images, _stored_weights_act, _norms_are_positive, _a_constant_gains_nothing),
        *(_real_images_have_a_side, _slopes_are_bounded, _images_have_levels, _bounds_hold, _bounds_agree),
        _the_generator_hears,
    )
    return sorted((remark for rule in rules for remark in rule(parts)), key=lambda remark: not remark.is_refusal)


def _scores_are_of_single_images(parts: Combination) -> Iterator[Remark]:
    """Refuse to couple the images of a batch if a technique needs scores of single images."""
    for name, technique in parts.techniques.items():
        if not technique.needs_uncoupled_images:
            continue
        needs = f"{_KEY}.{name} needs a score that is of its image alone"
        mixing = coupling_layer(parts.network, training=True)
        if isinstance(mixing, _BatchNorm):
            yield Remark(
                True, f"{needs}, and batch normalisation mixes a batch (arXiv:1704.00028): {_WITHOUT_NORMALIZATION}"
            )
        elif mixing is not None:
            yield Remark(True, f"{needs}, and {_name(mixing)} in the discriminator mixes a batch: leave one out")
        for other, its_company in parts.techniques.items():
            if its_company.couples_images:
                yield Remark(True, f"{needs}, and {other} compares the images of a batch: set {_KEY}.{other}=null")
            elif its_company.couples_images is None:
                yield Remark(
                    False,
                    f"{needs}, and {other} does not declare whether it is: set couples_images on {_name(its_company)}",
                )


def _stored_weights_act(parts: Combination) -> Iterator[Remark]:
    """Refuse to parametrise weights twice, and to change stored weights that are not the effective ones."""
    weights = {name: part for name, part in parts.techniques.items() if isinstance(part, WeightTechnique)}
    names = [name for name, technique in weights.items() if technique.needs_stored_weights]
    for index, name in enumerate(names):
        if any(map(_is_parametrized, parts.network.modules())):
            yield Remark(
                True,
                f"{_KEY}.{name} needs weights that act as they are stored, and the discriminator's are parametrised",
            )
        for other in names[index + 1 :]:
            if weights[name].reparametrizes or weights[other].reparametrizes:
                yield Remark(
                    True,
                    f"{_KEY}: {name} and {other} exclude each other, because the weights that one changes are not "
                    "those that act under the other: set one to null",
                )


def _norms_are_positive(parts: Combination) -> Iterator[Remark]:
    """Refuse to divide weights by a norm of zero."""
    if not (isinstance(parts.network, DiscriminatorNetwork) and parts.network.has_zero_weights):
        return
    for name, technique in parts.techniques.items():
        if isinstance(technique, WeightTechnique) and technique.divides_by_norm:
            yield Remark(
                True,
                f"{_KEY}.{name} divides weights by their norm, and layers of {_name(parts.network)} start at zero: set "
                f"{_KEY}.{name}=null, or choose another model/discriminator",
            )


def _a_constant_gains_nothing(parts: Combination) -> Iterator[Remark]:
    """Refuse a loss that falls without bound as a constant is added to all scores."""
    if not parts.game.rewards_a_constant:
        return
    fault = "adding a constant to all scores would lower the loss without end"
    changed_by = [name for name, part in parts.techniques.items() if isinstance(part, ObjectiveTechnique)]
    if parts.objective.rewards_a_constant or not changed_by:
        yield Remark(True, f"model.objective must have a lower bound, got {_name(parts.objective)}: {fault}")
        return
    key = f"{_KEY}.{changed_by[-1]}"
    yield Remark(
        True,
        f"{key} needs an objective that keeps a lower bound, got {_name(parts.objective)}: {fault}; set {key}=null, or "
        "choose another model/objective",
    )


def _slopes_are_bounded(parts: Combination) -> Iterator[Remark]:
    """Refuse a loss that falls without bound as the scores grow, unless a technique bounds their slope."""
    if not parts.game.needs_a_bounded_slope:
        return
    needs = f"model.objective {_name(parts.objective)} needs a technique that bounds the slope of the scores"
    bounding, undeclared = parts.with_slope("bounded", "one"), parts.with_slope("undeclared")
    holding = [name for name in bounding if not _is_undone(name, parts)]
    scaling = next((layer for layer in parts.network.modules() if getattr(layer, "has_free_scale", False)), None)
    if any(scaling is None or not parts.techniques[name].bounds_layers_alone for name in holding):
        return
    if holding:
        yield Remark(
            True,
            f"{needs}, which {holding[0]} does not beside the free scale of {_name(scaling)}: set "
            "model.discriminator.attention_side=null, or add technique=[weight_clipping]",
        )
        return
    if undeclared:
        technique = _name(parts.techniques[undeclared[0]])
        yield Remark(False, f"{needs}, and {undeclared[0]} does not declare whether it does: set slope on {technique}")
    elif bounding:
        yield Remark(
            True, f"{needs}, which {bounding[0]} does not beside {_normalization(parts)}: {_WITHOUT_NORMALIZATION}"
        )
    else:
        yield Remark(
            True,
            f"{needs}, or its loss falls without end: add technique=[weight_clipping], or [gradient_penalty] without "
            "batch normalisation",
        )


def _images_have_levels(parts: Combination) -> Iterator[Remark]:
    """Refuse to change the colours of images that are black or white."""
    for name, technique in parts.techniques.items():
        if technique.needs_grey_levels and parts.num_levels == 2:
            yield Remark(
                True,
                f"{_KEY}.{name} needs images of more than two levels, got binarised ones: set "
                "dataset.binarization=none (dataset=mnist in place of binarized_mnist; in genlab check "
                f"num_levels=256), or {_KEY}.{name}=null",
            )


def _real_images_have_a_side(parts: Combination) -> Iterator[Remark]:
    """Refuse a technique that uses the sign of scores without a threshold."""
    zeros = torch.zeros(1, device="cpu")
    for name, technique in parts.techniques.items():
        if technique.needs_margins and parts.game.margins(zeros, zeros) is None:
            yield Remark(
                True,
                f"{_KEY}.{name} needs an objective with a threshold between real and generated, got "
                f"{_name(parts.objective)}: set {_KEY}.{name}=null, or choose another model/objective",
            )


def _bounds_hold(parts: Combination) -> Iterator[Remark]:
    """Warn of bounds of single layers with a normalisation, which divides by numbers that may be small."""
    for name in parts.techniques:
        if _is_undone(name, parts):
            yield Remark(
                False,
                f"{_KEY}.{name} bounds the layers and not the scores beside {_normalization(parts)}: "
                f"{_WITHOUT_NORMALIZATION}",
            )


def _bounds_agree(parts: Combination) -> Iterator[Remark]:
    """Warn of a target slope of one that clipped weights may not reach."""
    for one in parts.with_slope("one"):
        for bounded in parts.with_slope("bounded"):
            yield Remark(
                False, f"{_KEY}: {one} asks for a slope of one, which {bounded} may put out of reach: set one to null"
            )


def _the_generator_hears(parts: Combination) -> Iterator[Remark]:
    """Warn of scores that compare images if the generator does not learn from scores."""
    for name in (name for name, technique in parts.techniques.items() if technique.replaces_objective):
        for other in (name for name, technique in parts.techniques.items() if technique.couples_images):
            yield Remark(
                False,
                f"{_KEY}.{name} replaces the generator's objective, so that it learns nothing from {other}: set "
                f"{_KEY}.{name}.replaces_objective=false",
            )
        if parts.projects_conditions:
            yield Remark(
                False,
                f"{_KEY}.{name} replaces the generator's objective, so that it learns nothing of the classes from "
                f"their projection: set {_KEY}.{name}.replaces_objective=false, or model/conditioning=class_labels",
            )


def _is_parametrized(layer: nn.Module) -> bool:
    """Return True if a layer's weights are parametrised, by torch's parametrisations or by its older hooks."""
    return is_parametrized(layer) or hasattr(layer, "weight_orig") or hasattr(layer, "weight_g")


def _is_undone(name: str, parts: Combination) -> bool:
    """Return True if a normalisation of the network undoes the bound of a technique."""
    return parts.techniques[name].bounds_layers_alone and parts.normalization is not None


def _normalization(parts: Combination) -> str:
    return "batch normalisation" if isinstance(parts.normalization, _BatchNorm) else _name(parts.normalization)


def _name(part: object) -> str:
    return type(part).__name__
