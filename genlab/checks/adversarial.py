"""Adversarial training: gradients of the discriminator's phase, scores that are logits, penalties of known value.

Dimensions: B batch, C channels, H height, W width, F features, K conditions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.checks.phases import gradients
from genlab.checks.subject import DoesNotApply, Finding, Subject, held_if, require
from genlab.models.capabilities import HasScores
from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.networks import DiscriminatorNetwork
from genlab.models.gan.techniques.base import StepTensors, TermTechnique
from genlab.types import Batch, ImageSpec, Phase

_SHIFT = 100.0
_SLOPE = 3.0


class FlatPixels(DiscriminatorNetwork):
    """Network whose features are the pixels, so that the score is linear in the image."""

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


def step_tensors(discriminator: Discriminator, real: Tensor, fake: Tensor) -> StepTensors:
    """Return the tensors of a step without conditions or a generator's weights; the score is the first output."""
    return StepTensors(
        generator=nn.Identity(),
        discriminator=discriminator,
        real=real,
        fake=fake,
        real_conditions=real.new_empty(len(real), 0),
        fake_conditions=fake.new_empty(len(fake), 0),
        fake_output=discriminator(fake, fake.new_empty(len(fake), 0)),
        score=lambda outputs: outputs[:, 0],
    )


def generated_images_are_detached(subject: Subject) -> Finding:
    """Check that the discriminator's phase sends no gradient to the modules of other phases, frozen or not."""
    model = subject.fresh(randomized=True).train()
    last = {id(weight) for layer in require(model, HasScores).score_layers() for weight in layer.parameters()}

    def parameters(phase: Phase) -> set[int]:
        return {id(weight) for module in phase.modules for weight in module.parameters()}

    phases = model.phases()
    own = next((phase for phase in phases if last & parameters(phase)), None)
    if own is None:
        return held_if(False, "no phase trains score_layers()")
    others = set().union(*(parameters(phase) for phase in phases if phase is not own))
    if not others:
        raise DoesNotApply(f"no other phase than {own.name} trains a parameter")
    found = gradients(model, own.loss(subject.batch()).value)

    def largest(ids: set[int]) -> float:
        of_ids = [found.get(name) for name, weight in model.named_parameters() if id(weight) in ids]
        # Not Python's max, which passes over NaN.
        return float(torch.tensor([0.0, *(float(part.abs().max()) for part in of_ids if part is not None)]).max())

    in_last, in_others = largest(last), largest(others - last)
    seen = f"phase {own.name}: largest gradient in its last layer {in_last:.1e}, in other phases {in_others:.1e}"
    return held_if(in_others == 0.0 < in_last, seen)


def scores_are_unbounded(subject: Subject) -> Finding:
    """Check that a constant added to the outputs is added to the score, which is therefore a logit."""
    model = require(subject.fresh(randomized=True).eval(), HasScores)
    batch = subject.batch()
    with torch.no_grad():
        before = _scores(model, batch)
        handles = [layer.register_forward_hook(lambda _, __, out: out + _SHIFT) for layer in model.score_layers()]
        try:
            moved = _scores(model, batch) - before
        finally:
            for handle in handles:
                handle.remove()
    # Holds for the logsumexp of class logits (semi-supervised) and for a single output (all others).
    error = float((moved - _SHIFT).abs().max())
    return held_if(error < 1e-2, f"scores moved by {float(moved.mean()):.4g} when the outputs moved by {_SHIFT:g}")


def _scores(model: HasScores, batch: Batch) -> Tensor:
    """Return the scores of the given images, with the same noise at each call."""
    torch.manual_seed(0)
    return model.evaluate(batch)[model.score_measure]


def penalties_of_a_linear_critic(subject: Subject) -> Finding:
    """Check each gradient penalty against its closed form: the gradient of w . x is w everywhere."""
    expected = {
        part: value
        for part in subject.fresh().modules()
        if isinstance(part, TermTechnique) and (value := part.penalty_of_slope(_SLOPE)) is not None
    }
    if not expected:
        raise DoesNotApply("it has no technique with penalty_of_slope()")
    shape = (5, subject.spec.channels, subject.spec.height, subject.spec.width)
    tensors = step_tensors(linear_critic(subject.spec, slope=_SLOPE), torch.randn(shape), torch.randn(shape))
    seen, holds = [], True
    for part, value in expected.items():
        term = part.discriminator_term(tensors)
        found = 0.0 if term is None else term.value.item()
        holds = holds and abs(found - value) < 1e-4 * value
        seen.append(f"{type(part).__name__} {found:.6g} for |w| = {_SLOPE:g}, expected {value:.6g}")
    return held_if(holds, "; ".join(seen))
