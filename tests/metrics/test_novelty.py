"""The area under the ROC curve, against its definition over pairs."""

import itertools

import pytest
import torch

from genlab.metrics.novelty import auroc


@pytest.mark.parametrize("counts", [(1, 1), (7, 4), (30, 50)])
def test_the_area_is_the_share_of_pairs_with_ties_counted_half(counts: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    familiar, novel = (torch.randint(6, (count,), generator=generator).double() / 3 for count in counts)
    pairs = list(itertools.product(familiar.tolist(), novel.tolist()))
    expected = sum(1.0 if new > old else 0.5 if new == old else 0.0 for old, new in pairs) / len(pairs)
    assert auroc(familiar, novel).value == pytest.approx(expected, abs=1e-12)
    assert auroc(novel, familiar).value == pytest.approx(1 - expected, abs=1e-12)


def test_the_error_is_the_deviation_over_draws_of_both_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400, 90, generator=generator)
    found = [auroc(row[:60], row[60:] + 0.7) for row in draws]
    deviation = torch.tensor([area.value for area in found]).std().item()
    errors = [area.standard_error for area in found if area.standard_error is not None]
    assert sum(errors) / len(errors) == pytest.approx(deviation, rel=0.1)
    assert auroc(draws[0, :1], draws[1]).standard_error is None
    assert auroc(torch.zeros(3), torch.ones(4)) == auroc(torch.zeros(3), torch.full((4,), 2.0))


@pytest.mark.parametrize("values", [torch.zeros(3, 1), torch.zeros(0), torch.full((3,), torch.nan)])
def test_what_is_no_vector_of_numbers_is_refused(values: torch.Tensor) -> None:
    for pair in ((values, torch.arange(3.0)), (torch.arange(3.0), values)):
        with pytest.raises(ValueError, match="an AUROC needs vectors of numbers"):
            auroc(*pair)
