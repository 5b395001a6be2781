"""All invariants, by their names in the table."""

from collections.abc import Callable, Iterator, Mapping

from genlab.checks import (
    adversarial,
    attention,
    autoregressive,
    interface,
    likelihood,
    phases,
    ranks,
    training,
    variational,
)
from genlab.checks.subject import DoesNotApply, Finding, Subject
from genlab.errors import GenlabError

Invariant = Callable[[Subject], Finding]

INVARIANTS: Mapping[str, Invariant] = {
    "no prediction sees its own symbol": autoregressive.no_leak,
    "likelihood is that of the logits": likelihood.likelihood_is_that_of_the_logits,
    "probabilities sum to one": likelihood.probabilities_sum_to_one,
    "a bound sums to at most one": likelihood.bound_sums_to_at_most_one,
    "incremental sampler equals full pass": autoregressive.incremental_equals_full,
    "completion keeps what is given": autoregressive.completion_keeps_what_is_given,
    "filter rows sum to one": attention.rows_sum_to_one,
    "filters are centred": attention.filters_are_centred,
    "KL is zero at the prior": variational.kl_is_zero_at_the_prior,
    "KL is that of torch.distributions": variational.kl_is_that_of_torch,
    "draws are of the posterior": variational.draws_are_of_the_posterior,
    "noise is fresh for every latent": variational.noise_is_fresh,
    "bound depends on the draw": variational.bound_depends_on_the_draw,
    "bound agrees with importance weights": variational.bound_agrees_with_importance_weights,
    "generated images are detached": adversarial.generated_images_are_detached,
    "scores are unbounded": adversarial.scores_are_unbounded,
    "gradient penalty of a linear critic": adversarial.penalties_of_a_linear_critic,
    "phases are isolated": phases.phases_are_isolated,
    "every parameter has a gradient": phases.every_parameter_has_a_gradient,
    "measures are finite, one per image": interface.measures_are_finite,
    "measures are of the image alone": interface.measures_are_of_the_image,
    "samples follow the seed": interface.samples_follow_the_seed,
    "state survives a round trip": interface.state_survives,
    "noise differs between ranks": ranks.noise_differs,
    "ranks stay equal": ranks.ranks_stay_equal,
    "resume is bitwise": training.resume_is_bitwise,
    "what is saved is what was measured": training.what_is_saved_is_what_was_measured,
}


def find(name: str, subject: Subject) -> Finding:
    """Return the finding of one check; a model that raises an error has failed it."""
    try:
        return INVARIANTS[name](subject)
    except DoesNotApply as reason:
        return Finding("does not apply", str(reason))
    except Exception as error:
        lines = str(error).splitlines()
        kind = "" if isinstance(error, GenlabError) else f"{type(error).__name__}: "
        return Finding("FAILED", f"raised {kind}{lines[0] if lines else ''}".rstrip(": "))


def findings(subject: Subject) -> Iterator[tuple[str, Finding]]:
    """Yield the finding of each check, in order."""
    for name in INVARIANTS:
        yield name, find(name, subject)
