"""Every preset of the configuration tree, alone and with every technique: two real training steps each."""

import copy
import functools
from typing import Any

import pytest
import torch

from benchmarks.composed import values_of
from genlab.checks.phases import training_step
from genlab.config.build import build
from genlab.config.location import config_directory
from genlab.errors import ConfigurationError
from genlab.models.base import Model
from genlab.models.gan.gan import GAN
from genlab.types import UNLABELLED, Batch, ImageSpec
from tests.models.gan.tiny import make_updates
from tests.thinning import thinned

SPEC = ImageSpec(channels=1, height=8, width=8, num_levels=17, num_classes=3)
PRESETS = sorted(
    path.stem
    for path in (config_directory() / "model").glob("*.yaml")
    if "genlab.models.gan.gan.GAN" in path.read_text() or "  - gan\n" in path.read_text()
)
TECHNIQUES = sorted(path.stem for path in (config_directory() / "technique").glob("*.yaml"))
# Every other preset, with one technique and one way to reuse images each: together all networks and conditionings.
EVERY = 2
COMBINATIONS = [
    (preset, TECHNIQUES[(number + shift) % len(TECHNIQUES)])
    for number, preset in enumerate(PRESETS)
    for shift in range(len(TECHNIQUES))
]
REUSES = [(preset, reuses) for number, preset in enumerate(PRESETS) for reuses in (number % 4 == 0, number % 4 != 0)]
EXCLUDED = "exclude each other"
WASSERSTEIN = ("wgan", "wgan_gp", "wgan_gp_resnet")
REFUSED = {
    **{
        (preset, penalty): "batch normalisation mixes a batch"
        for preset in ("acgan", "cgan", "dcgan", "improved_gan", "infogan", "wgan")
        for penalty in ("gradient_penalty", "r1_penalty", "r2_penalty")
    },
    **{
        (preset, "minibatch_discrimination"): "minibatch_discrimination compares the images of a batch"
        for preset in ("r3gan", "wgan_gp", "wgan_gp_resnet")
    },
    **{(preset, "adaptive_augment"): "an objective with a threshold" for preset in WASSERSTEIN},
    **{(preset, "label_smoothing"): "keeps a lower bound, got Wasserstein" for preset in WASSERSTEIN},
    **{
        (preset, other): EXCLUDED
        for preset in ("projection_gan", "sngan", "sngan_resnet")
        for other in ("weight_clipping", "weight_normalization")
    },
    ("r3gan", "spectral_normalization"): "layers of R3GANDiscriminator start at zero",
    ("r3gan", "virtual_batch_norm"): "finds no normalisation in R3GANGenerator to replace",
    ("semi_supervised_gan", "spectral_normalization"): EXCLUDED,
    ("semi_supervised_gan", "weight_clipping"): EXCLUDED,
    ("wgan", "spectral_normalization"): EXCLUDED,
    ("wgan", "weight_normalization"): EXCLUDED,
}
WARNED = {
    **{
        (preset, "spectral_normalization"): "not the scores beside batch normalisation"
        for preset in ("acgan", "cgan", "dcgan", "improved_gan", "infogan")
    },
    ("improved_gan", "feature_matching"): "it learns nothing from minibatch_discrimination",
    ("projection_gan", "feature_matching"): "it learns nothing of the classes from their projection",
    ("semi_supervised_gan", "minibatch_discrimination"): "it learns nothing from minibatch_discrimination",
    ("wgan_gp", "weight_clipping"): "which weight_clipping may put out of reach",
    ("wgan_gp_resnet", "weight_clipping"): "which weight_clipping may put out of reach",
}
# Values at which a step costs milliseconds and moves something. Every other value is the preset's.
TINY: dict[str, dict[str, Any]] = {
    "latent": {"size": 4},
    "generator": {"channels": 2, "group_size": 4, "hidden": [6, 6]},
    "discriminator": {"channels": 8, "hidden": [7, 6], "num_hidden": None},
    "conditioning": {"num_hidden": 5},
    "minibatch_discrimination": {"num_kernels": 3, "kernel_size": 2},
    "virtual_batch_norm": {"num_reference": 3},
    "weight_clipping": {"bound": 0.5},  # six layers of 0.01 leave no gradient within fp32
}


def shrink(node: dict[str, Any], name: str) -> None:
    node |= {key: value for key, value in TINY.get(name, {}).items() if key in node}


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    node: dict[str, Any] = values_of(*overrides)["model"]
    return node


@functools.cache
def shrunk(*overrides: str) -> dict[str, Any]:
    node = copy.deepcopy(composed(*overrides))
    for name, part in (*node.items(), *node["techniques"].items()):
        if isinstance(part, dict):
            shrink(part, name)
    return node


def make(preset: str, technique: str | None = None) -> GAN:
    torch.manual_seed(0)
    node = copy.deepcopy(shrunk(f"model={preset}"))
    if technique is not None:
        every = shrunk("model=gan", f"technique=[{','.join(TECHNIQUES)}]")["techniques"]
        node["techniques"][technique] = every[technique]
    model = build(node, "model", expects=Model, spec=SPEC)
    assert isinstance(model, GAN)
    return model


def make_batch() -> Batch:
    labels = torch.tensor([0, 1, 2, UNLABELLED, UNLABELLED])
    return Batch(images=torch.rand(5, 1, 8, 8), labels=labels)


def test_the_presets_and_the_techniques_are_seen() -> None:
    assert len(PRESETS) >= 16
    assert len(TECHNIQUES) >= 14
    assert len(PRESETS) * len(TECHNIQUES) - len(REFUSED) >= 180


MNIST = ImageSpec(channels=1, height=28, width=28, num_levels=256, num_classes=10)
CIFAR = ImageSpec(channels=3, height=32, width=32, num_levels=256, num_classes=10)


COUNTS: list[tuple[str, ImageSpec, dict[str, int], dict[str, int]]] = [
    # Of the authors' program: 784-1000-500-250-250-250-10 with the lengths of the outputs; 100-500-500-784 with a
    # shift per hidden unit, and a length and a bias per pixel.
    ("semi_supervised_gan", MNIST, {}, {"discriminator": 1_538_770, "generator": 694_568, "conditioning": 0}),
    # Appendix C.1, without the biases that batch normalisation would take away again, but for Q's.
    ("infogan", MNIST, {}, {"discriminator": 6_558_017, "generator": 6_652_481, "conditioning": 133_262}),
    # Appendix F and gan_cifar_resnet.py of the authors, layer by layer. G: 128 * 2048 + 2048; 3 blocks of
    # 2 * (128 * 128 * 9 + 128) + 128 * 128 + 128 + 2 * 256; 256; 128 * 3 * 9 + 3. D: 3 * 128 * 9 + 128 +
    # 128 * 128 * 9 + 128 + 3 * 128 + 128; one block that halves; two of 2 * (128 * 128 * 9 + 128); 128 + 1.
    (
        "wgan_gp_resnet",
        CIFAR,
        {"generator": 128, "discriminator": 128},
        {"discriminator": 1_053_825, "generator": 1_204_483},
    ),
    # Table 4 and gen_models/resnet_32.py, dis_models/snresnet_32.py of the authors: as above, 256 channels in G.
    # The last layer of their discriminator has no bias: 1,053,824 there.
    (
        "sngan_resnet",
        CIFAR,
        {"generator": 256, "discriminator": 128},
        {"discriminator": 1_053_825, "generator": 4_276_739},
    ),
    # The same files with ten classes: 6 * 2 * 10 * 256 in the place of 6 * 2 * 256; 10 * 128 in the embedding.
    (
        "projection_gan",
        CIFAR,
        {"generator": 256, "discriminator": 128},
        {"discriminator": 1_053_825 + 1_280, "generator": 4_276_739 + 27_648},
    ),
    # The appendix's tables for CIFAR-10. G: 110 * 6144 + 6144; 384 * 192 * 25 + 2 * 192; 192 * 96 * 25 + 2 * 96;
    # 96 * 3 * 25 + 3. D: 3 * 16 * 9 + 16; five convolutions from 16 to 512 channels, each 9 * 2 * c * c + 4 * c of
    # c channels; 8192 * 11 + 11.
    ("acgan", CIFAR, {}, {"discriminator": 1_663_883, "generator": 2_993_763}),
    # R3GAN/Networks.py and the CIFAR10 preset of the authors' train.py. Eight blocks of 768 * 1536 * 2 +
    # 1536 * 16 * 9 + 2 * 1536. G: 768 * 16 + 64 * 768; 768 * 3. D: 3 * 768; 768 * 16; 768 + 1 (theirs: no bias).
    ("r3gan", CIFAR, {"generator": 768, "discriminator": 768}, {"discriminator": 20_683_777, "generator": 20_732_160}),
]


@pytest.mark.parametrize(("preset", "spec", "channels", "counts"), thinned(COUNTS, 5))
def test_networks_of_a_paper_have_its_counts_of_parameters(
    preset: str, spec: ImageSpec, channels: dict[str, int], counts: dict[str, int]
) -> None:
    node = copy.deepcopy(composed(f"model={preset}"))
    for network, number in channels.items():
        node[network]["channels"] = number
        if preset == "r3gan":
            node[network] |= {"group_size": 16, "blocks_per_stage": 2}
    with torch.device("meta"):
        model = build(node, "model", expects=Model, spec=spec)
    found = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in counts}
    assert found == counts


@pytest.mark.parametrize(("preset", "technique"), thinned(COMBINATIONS, EVERY * len(TECHNIQUES)))
def test_every_preset_trains_with_every_technique(preset: str, technique: str) -> None:
    if (preset, technique) in REFUSED:
        with pytest.raises(ConfigurationError, match=REFUSED[preset, technique]) as refused:
            make(preset, technique)
        assert "\n" not in str(refused.value)
        return
    model = make(preset, technique)
    assert technique in model.techniques
    assert [WARNED[preset, technique] in line for line in model.warnings()] == [True] * ((preset, technique) in WARNED)
    parameters = dict(model.named_parameters())
    updates = make_updates(model)
    for _ in range(2):
        changed = training_step(model, updates, make_batch())
        assert all(names for names in changed.values())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in parameters.values())
    assert torch.isfinite(model.sample(2)).all()


@pytest.mark.parametrize(("preset", "reuses"), thinned(REUSES, EVERY * 2))
def test_a_phase_changes_its_own_parameters_and_nothing_else(preset: str, reuses: bool) -> None:
    model = make(preset)
    assert not model.warnings()
    model.reuses_generated = reuses
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    updates = make_updates(model)
    training_step(model, updates, make_batch())  # layers before one that starts at zero move from the second step on
    changed = training_step(model, updates, make_batch())
    own = {
        phase.name: {
            name
            for name, parameter in model.named_parameters()
            if any(parameter is mine for module in phase.modules for mine in module.parameters())
        }
        for phase in model.phases()
    }
    assert own["discriminator"] | own["generator"] == before.keys()
    assert not own["discriminator"] & own["generator"]
    for name, names in changed.items():
        assert names <= own[name]
        assert len(names) >= 0.7 * len(own[name]), "a phase moves nearly all of its parameters"
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("preset", thinned(PRESETS, EVERY))
def test_a_constant_added_to_all_scores_gains_a_discriminator_nothing(preset: str) -> None:
    model, batch = make(preset), make_batch()
    losses = []
    for constant in (0.0, -1e6, 1e6):
        with torch.no_grad():
            model.discriminator.output.bias.fill_(constant)
        torch.manual_seed(1)
        losses.append(model.phases()[0].loss(batch).value.item())
    assert min(losses) > losses[0] - 1
