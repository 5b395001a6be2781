"""Float32 is float32 where likelihoods and samples are computed, whatever a user has allowed elsewhere."""

from collections.abc import Iterator

import pytest
import torch

from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.numerics import float32_products, has_subnormals, make_explicit, own_arithmetic
from genlab.training.capture import step_capture
from tests.models.pixelcnn.tiny_autoregressive import make
from tests.models.tiny import make_batch
from tests.training.conftest import make_settings


def is_rounded() -> tuple[bool, bool]:
    return torch.get_float32_matmul_precision() != "highest", torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_rounding_is_set_within_and_restored(outside: bool, inside: bool) -> None:
    torch.set_float32_matmul_precision("high" if outside else "highest")
    torch.backends.cudnn.allow_tf32 = outside
    with float32_products(tf32=inside):
        assert is_rounded() == (inside, inside)
    assert is_rounded() == (outside, outside)


def test_the_arithmetic_of_the_caller_is_restored() -> None:
    flags = torch.backends.cudnn
    before = (torch.get_float32_matmul_precision(), flags.allow_tf32, flags.benchmark, flags.deterministic)
    with torch.inference_mode(), own_arithmetic():
        assert torch.ones(1, requires_grad=True).sum().requires_grad
        torch.set_float32_matmul_precision("high")
        flags.allow_tf32, flags.benchmark, flags.deterministic = (not value for value in before[1:])
    assert (torch.get_float32_matmul_precision(), flags.allow_tf32, flags.benchmark, flags.deterministic) == before


def test_numbers_too_small_for_a_float32_are_zero_on_every_thread() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush them")
    factors = torch.full((1_000_000,), 1e-30), torch.full((1_000_000,), 1e-10)
    assert has_subnormals()
    assert torch.mul(*factors).all()
    make_explicit(torch.device("cpu"))
    assert not has_subnormals()
    assert not torch.mul(*factors).any()
    assert torch.tensor(1e-37).mul(1).item() == pytest.approx(1e-37)


def test_the_rest_of_the_cpu_is_left_as_it_is() -> None:
    before = is_rounded(), torch.backends.cudnn.deterministic
    make_explicit(torch.device("cpu"))
    assert (is_rounded(), torch.backends.cudnn.deterministic) == before


def test_likelihoods_samples_and_entropies_never_round(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(PixelCNN)
    batch = make_batch(model.spec, 2)
    seen = []
    logits, decoder = model.logits, model.decoder
    monkeypatch.setattr(model, "logits", lambda *values: (seen.append(is_rounded()), logits(*values))[1])
    monkeypatch.setattr(model, "decoder", lambda *a, **k: (seen.append(is_rounded()), decoder(*a, **k))[1])
    with float32_products(tf32=True):
        model.evaluate(batch)
        model.entropy_map(batch)
        model.sample(2)
        model.complete(batch.images, 1)
    assert seen == [(False, False)] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"compile_mode": "max-autotune"},
            r"trainer\.compile_mode must be default without trainer\.compile=true, got m",
        ),
        (
            {"compile": True, "compile_mode": "reduce-overhead", "cuda_graph": True},
            r"trainer\.cuda_graph must be auto or false with trainer\.compile_mode=reduce-overhead, got true",
        ),
    ],
)
def test_settings_without_effect_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)


@pytest.mark.gpu
def test_a_device_is_set_up_for_bits_that_repeat() -> None:
    make_explicit(torch.device("cuda", 0))
    assert is_rounded() == (False, False)
    assert torch.backends.cudnn.deterministic
    a, b = (torch.randn(512, 512, device="cuda") for _ in range(2))
    exact = (a.double() @ b.double()).float()
    with float32_products(tf32=True):
        rounded = a @ b
    scale = exact.abs().max()
    assert (a @ b - exact).abs().max() / scale < 1e-5 < (rounded - exact).abs().max() / scale
    assert step_capture("auto", torch.device("cuda"), obstacle=None) is not None
