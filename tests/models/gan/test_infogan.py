"""The bound on the mutual information against closed forms, and where its gradient goes."""

import math

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from genlab.models.gan.discriminator import DiscriminatorOutput
from genlab.models.gan.gan import GAN
from genlab.models.gan.infogan import CodeHead, HiddenCodes
from tests.models.gan.tiny import gradients, make_gan
from tests.models.tiny import make_batch

K, D = 4, 2


def make_codes(**changes: float) -> HiddenCodes:
    settings = {
        "num_categories": K,
        "num_continuous": D,
        "categorical_weight": 1.0,
        "continuous_weight": 0.1,
        "num_hidden": 5,
        "smallest_std": math.exp(-5),
    }
    return HiddenCodes(**(settings | changes))


def make_infogan(**changes: float) -> GAN:
    torch.manual_seed(0)
    return make_gan(None, conditioning=make_codes(**changes))


class KnownHead(nn.Module):
    """A head Q with fixed answers."""

    def __init__(self, logits: Tensor, mean: Tensor, log_std: Tensor) -> None:
        super().__init__()
        self.answer = logits, mean, log_std

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.answer


def information(logits: Tensor, mean: Tensor, log_std: Tensor, inputs: Tensor, **weights: float) -> dict[str, float]:
    codes = make_codes(**weights)
    codes.head = KnownHead(logits, mean, log_std)  # type: ignore[assignment]
    output = DiscriminatorOutput(features=torch.zeros(len(inputs), 3), outputs=torch.zeros(len(inputs), 1))
    loss = codes.generator_term(output, inputs)
    return {"value": loss.value.item(), **{name: metric.item() for name, metric in loss.metrics.items()}}


def drawn(num: int = 500) -> Tensor:
    return make_codes().draw(num, labels=None, generator=Generator().manual_seed(0), device=torch.device("cpu"))


def test_a_q_that_knows_nothing_has_no_information() -> None:
    """Uniform logits: log K - log K. A normal as wide as it likes cannot reach the uniform's own density."""
    inputs = drawn()
    zeros = torch.zeros(500, D)
    found = information(torch.zeros(500, K), zeros, zeros, inputs)
    assert found["categorical_information_nats"] == pytest.approx(0, abs=1e-6)
    # E log N(c; 0, 1) of c uniform on (-1, 1) is -log(2 pi) / 2 - 1/6, its entropy log 2.
    expected = D * (math.log(2) - 0.5 * math.log(2 * math.pi) - 1 / 6)
    assert found["continuous_information_nats"] == pytest.approx(expected, abs=0.02)
    assert found["continuous_information_nats"] < 0


def test_a_perfect_q_has_all_the_information() -> None:
    inputs = drawn()
    std = 0.01
    found = information(100 * inputs[:, :K], inputs[:, K:], torch.full((500, D), math.log(std)), inputs)
    assert found["categorical_information_nats"] == pytest.approx(math.log(K), abs=1e-6)
    expected = D * (math.log(2) - math.log(std) - 0.5 * math.log(2 * math.pi))
    assert found["continuous_information_nats"] == pytest.approx(expected, rel=1e-5)


def test_any_other_q_is_scored_by_its_log_likelihood() -> None:
    inputs = drawn()
    logits, mean, log_std = torch.randn(500, K), torch.randn(500, D), 0.3 * torch.randn(500, D)
    found = information(logits, mean, log_std, inputs, categorical_weight=2.0, continuous_weight=0.3)
    of_category = math.log(K) + logits.log_softmax(1)[inputs[:, :K] > 0].mean().item()
    density = Normal(mean, log_std.exp()).log_prob(inputs[:, K:]).sum(1).mean().item()
    of_numbers = D * math.log(2) + density
    assert found["categorical_information_nats"] == pytest.approx(of_category, rel=1e-4)
    assert found["continuous_information_nats"] == pytest.approx(of_numbers, rel=1e-4)
    assert found["value"] == pytest.approx(-2 * of_category - 0.3 * of_numbers, rel=1e-4)


def test_the_heads_outputs_are_logits() -> None:
    """The gradient of one softmax is p - onehot; a second one would flatten it at the scale of certain answers."""
    codes = make_codes(num_continuous=0)
    logits = torch.tensor([[4.0, 0.0, 0.0, 0.0]], requires_grad=True)
    codes.head = KnownHead(logits, torch.empty(1, 0), torch.empty(1, 0))  # type: ignore[assignment]
    inputs = codes.inputs(torch.tensor([1]), torch.empty(1, 0))
    loss = codes.generator_term(DiscriminatorOutput(features=torch.zeros(1, 3), outputs=torch.zeros(1, 1)), inputs)
    (gradient,) = torch.autograd.grad(loss.value, logits)
    torch.testing.assert_close(gradient, logits.detach().softmax(1) - torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    model = make_infogan()
    with torch.no_grad():
        model.conditioning.head.output.weight.mul_(100)
    logits, _, _ = model.conditioning.head(torch.randn(6, 6))
    assert logits.abs().max() > 1
    assert not any(isinstance(module, nn.Softmax) for module in model.modules())


def test_the_standard_deviation_is_learned() -> None:
    model = make_infogan()
    head = model.conditioning.head
    _, _, log_std = head(torch.randn(20, 6))
    assert log_std.std() > 0.01
    found = gradients(model, model.phases()[1].loss(make_batch(model.spec, 8)).value)
    assert bool(found["conditioning.head.output.weight"][K + D :].any(1).all())
    assert bool(found["conditioning.head.output.bias"][K + D :].all())


@pytest.mark.parametrize("phase", [0, 1])
def test_the_bound_is_a_term_of_both_phases_and_reaches_trunk_and_generator(phase: int) -> None:
    """The difference between weights 1 and 0 is Q's gradient alone."""
    found = []
    for weight in (0.0, 1.0):
        model = make_infogan(categorical_weight=weight, continuous_weight=weight)
        torch.manual_seed(1)
        found.append(gradients(model, model.phases()[phase].loss(make_batch(model.spec, 8)).value))
    differs = {name for name in found[0] if not torch.allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-8)}
    trunk = {name for name in found[0] if name.startswith("discriminator.network")}
    head = {
        name for name in found[0] if name.startswith("conditioning.head") and name != "conditioning.head.hidden.0.bias"
    }
    generator = {name for name in found[0] if name.startswith("generator.")}
    assert trunk | head <= differs  # a bias in front of batch normalisation has no gradient
    assert (generator <= differs) == (phase == 1)
    assert "discriminator.output.weight" not in differs


def test_the_heads_parameters_belong_to_the_discriminators_phase() -> None:
    model = make_infogan()
    discriminator, generator = model.phases()
    head = {id(parameter) for parameter in model.conditioning.head.parameters()}
    assert head <= {id(parameter) for module in discriminator.modules for parameter in module.parameters()}
    assert not head & {id(parameter) for module in generator.modules for parameter in module.parameters()}


def test_codes_are_one_hot_and_uniform() -> None:
    inputs = drawn(4000)
    assert inputs.shape == (4000, K + D)
    assert torch.equal(inputs[:, :K].sum(1), torch.ones(4000))
    assert set(inputs[:, :K].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(inputs[:, :K].mean(0), torch.full((K,), 1 / K), atol=0.03, rtol=0)
    assert stats.kstest(inputs[:, K:].flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_a_category_is_read_back() -> None:
    model = make_infogan()
    images = torch.rand(5, 1, 4, 4)
    logits, _, _ = model.eval().conditioning.head(model.discriminator.network(2 * images - 1, torch.empty(5, 0)))
    model.train()
    assert torch.equal(model.predict_code(images), logits.argmax(1))
    assert model.training
    assert make_gan().predict_code(images) is None


@pytest.mark.parametrize(
    ("name", "value"), [("num_categories", 1), ("num_continuous", -1), ("num_hidden", 0), ("continuous_weight", -0.1)]
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"model\.conditioning\.{name}"):
        make_codes(**{name: value})


def test_the_standard_deviation_is_learned_down_to_its_bound() -> None:
    head = CodeHead(num_features=4, num_hidden=5, num_categories=K, num_continuous=D, smallest_std=0.5)
    with torch.no_grad():
        head.output.bias[-D:] = -3.0
        head.output.weight[-D:] = 0
    _, _, low = head(torch.randn(6, 4))
    torch.testing.assert_close(low.exp(), torch.full_like(low, 0.5))
    with torch.no_grad():
        head.output.bias[-D:] = 0.2
    _, _, free = head(torch.randn(6, 4))
    torch.testing.assert_close(free, torch.full_like(free, 0.2))


def test_a_standard_deviation_below_its_bound_grows_again_where_a_code_is_read_badly() -> None:
    """The clamp's gradient is zero below the bound: what had once been read well could never be doubted."""
    codes = make_codes(smallest_std=0.5)
    codes.build_head(4)
    with torch.no_grad():
        codes.head.output.weight[-2 * D :] = 0
        codes.head.output.bias[-2 * D : -D] = 3.0  # no code is that large
        codes.head.output.bias[-D:] = -2.0
    inputs = drawn(6)
    codes.generator_term(
        DiscriminatorOutput(features=torch.randn(6, 4), outputs=torch.zeros(6, 1)), inputs
    ).value.backward()
    assert (codes.head.output.bias.grad[-D:] < 0).all()  # descent raises them
