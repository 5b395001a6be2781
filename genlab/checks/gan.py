"""The game of a GAN: who learns from which images, what a score is, and a penalty whose value is known.

Dimensions: B batch, C channels, H height, W width, F features, K conditions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.checks.phases import gradients
from genlab.checks.subject import DoesNotApply, Finding, Subject, held_if
from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.gan import GAN
from genlab.models.gan.networks import DiscriminatorNetwork
from genlab.models.gan.techniques.base import StepTensors
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty
from genlab.types import ImageSpec

_NOT_A_GAN = "it is no GAN"
_SHIFT = 100.0
_SLOPE = 3.0


class FlatPixels(DiscriminatorNetwork):
    """The pixels themselves as features, so that the score is linear in the image."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.num_features = spec.channels * spec.height * spec.width
        self.seen: list[Tensor] = []

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        del conditions
        self.seen.append(images)
        return images.flatten(1)


def linear_critic(spec: ImageSpec, *, slope: float) -> Discriminator:
    """Return a critic whose gradient by the image has this norm everywhere."""
    network = FlatPixels(spec)
    critic = Discriminator(network, feature_layer=nn.Identity(), num_joint_features=network.num_features, num_outputs=1)
    with torch.no_grad():
        critic.output.weight.mul_(slope / critic.output.weight.norm())
    return critic


def step_tensors(
    discriminator: Discriminator, real: Tensor, fake: Tensor, generator: nn.Module | None = None
) -> StepTensors:
    """Return the tensors of a step without conditions; the score is the first output."""
    return StepTensors(
        generator=generator or nn.Identity(),
        discriminator=discriminator,
        real=real,
        fake=fake,
        real_conditions=real.new_empty(len(real), 0),
        fake_conditions=fake.new_empty(len(fake), 0),
        fake_output=discriminator(fake, fake.new_empty(len(fake), 0)),
        score=lambda outputs: outputs[:, 0],
    )


def generator_learns_nothing_from_the_discriminators_loss(subject: Subject) -> Finding:
    """Generated images are detached in the discriminator's phase, whatever the trainer freezes."""
    model = subject.fresh_of(GAN, _NOT_A_GAN, randomized=True).train()
    found = gradients(model, model.phases()[0].loss(subject.batch()).value)
    sizes = {
        part: max(
            (float(g.abs().max()) for name, g in found.items() if name.startswith(f"{part}.") and g is not None),
            default=0.0,
        )
        for part in ("generator", "discriminator")
    }
    seen = ", ".join(f"largest gradient in the {part} {size:.1e}" for part, size in sizes.items())
    return held_if(sizes["generator"] == 0.0 < sizes["discriminator"], seen)


def scores_are_unbounded(subject: Subject) -> Finding:
    """A score is a logit: what is added to the outputs is added to the score, which no sigmoid would let through."""
    model = subject.fresh_of(GAN, _NOT_A_GAN, randomized=True).eval()
    batch = subject.batch()
    before = model.evaluate(batch)["score_real"]
    with torch.no_grad():
        model.discriminator.output.bias.add_(_SHIFT)
    moved = model.evaluate(batch)["score_real"] - before
    # K + 1 classes score log sum exp of K logits, and hinge targets and Wasserstein critics the one output.
    error = float((moved - _SHIFT).abs().max())
    return held_if(error < 1e-2, f"scores moved by {float(moved.mean()):.4g} when the outputs moved by {_SHIFT:g}")


def gradient_penalty_is_that_of_a_linear_critic(subject: Subject) -> Finding:
    """lambda (|w| - 1)^2, for the gradient of w . x is w everywhere."""
    model = subject.fresh_of(GAN, _NOT_A_GAN)
    penalties = [part for part in model.techniques.values() if isinstance(part, GradientPenalty)]
    if not penalties:
        raise DoesNotApply("it has no gradient penalty")
    (penalty,) = penalties
    shape = (5, subject.spec.channels, subject.spec.height, subject.spec.width)
    tensors = step_tensors(linear_critic(subject.spec, slope=_SLOPE), torch.randn(shape), torch.randn(shape))
    value, expected = penalty.discriminator_term(tensors).value.item(), penalty.weight * (_SLOPE - 1) ** 2
    return held_if(
        abs(value - expected) < 1e-4 * expected, f"{value:.6g} for |w| = {_SLOPE:g}, expected {expected:.6g}"
    )
