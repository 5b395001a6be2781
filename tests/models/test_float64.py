"""A model computes in the type of its parameters: in float64, from float32 images and noise, it is itself but finer."""

import copy

import pytest
import torch

from genlab.checks.autoregressive import decode
from genlab.models.base import GenerativeModel
from genlab.models.capabilities import SamplesIncrementally
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from tests.models.test_interface import MODELS, SPECS, make
from tests.thinning import thinned


@pytest.mark.parametrize(
    ("name", "kind"),
    thinned(
        [*((name, "binary") for name in MODELS), *((name, "colour") for name in ("draw", "dcgan", "gated_pixelcnn"))], 6
    ),
)
def test_every_model_runs_in_float64(name: str, kind: str) -> None:
    single, batch = make(name, SPECS[kind])
    double = copy.deepcopy(single).double()
    found = []
    for model in (single.eval(), double.eval()):
        torch.manual_seed(1)
        found.append(model.diagnose(batch, num_importance_samples=2))
    for measure, values in found[1].items():
        assert values.dtype == torch.float64
        torch.testing.assert_close(values.float(), found[0][measure], rtol=1e-3, atol=1e-3)
    if isinstance(double, GenerativeModel):
        first, again = (model.sample(1, generator=torch.Generator().manual_seed(0)) for model in (single, double))
        assert again.dtype == torch.float64
        if not isinstance(double, AutoregressiveModel):  # it may draw another level if two are equally likely
            torch.testing.assert_close(again.float(), first, rtol=1e-3, atol=1e-3)
    if name in ("draw", "draw_classifier", "infogan", "pixelcnn") and kind == "binary":
        assert double.visualize(batch, num_samples=1)
    double.train()
    for phase in double.phases():
        double.zero_grad()
        loss = phase.loss(batch)
        loss.value.backward()
        assert loss.value.dtype == torch.float64
        trained = [parameter for module in phase.modules for parameter in module.parameters()]
        assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in trained)


@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn", "pixelcnn_pp", "pixelcnn_blocks"])
def test_a_sampler_in_float64_draws_from_the_very_distribution(name: str) -> None:
    """Its logits are those of the whole pass to 1e-12, where a conversion to float32 would leave 1e-6."""
    model, batch = make(name, SPECS["binary"])
    assert isinstance(model, AutoregressiveModel)
    model = model.double().eval()
    symbols = model.to_symbols(batch.images)
    with torch.no_grad():
        expected = model.logits(symbols, batch.labels).log_softmax(2)
    assert isinstance(model, SamplesIncrementally)
    found = decode(model, symbols, batch.labels, torch.float64).log_softmax(2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
