"""Precision, recall, density and coverage against loops over all pairs and torch-fidelity."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from genlab.metrics import distances
from genlab.metrics.manifold import manifold_scores


def draw(num_images: int, *, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(num_images, 4, generator=torch.Generator().manual_seed(seed)) + shift


def radius(points: np.ndarray, index: int, num_neighbours: int) -> float:
    others = np.delete(points, index, axis=0)
    return np.sort(np.linalg.norm(others - points[index], axis=1))[num_neighbours - 1]


@pytest.mark.parametrize("piece", [11, 2**22])
def test_against_loops(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_MAX_ENTRIES", piece)
    real, generated = draw(23, seed=1), draw(17, seed=2, shift=0.8)
    x, y = real.double().numpy(), generated.double().numpy()

    def inside(point: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
        radii = np.array([radius(centres, i, k) for i in range(len(centres))])
        return np.linalg.norm(centres - point, axis=1) <= radii

    scores = manifold_scores(real, generated, num_neighbours=2, num_neighbours_of_density=3)
    assert scores.precision.tolist() == [inside(point, x, 2).any() for point in y]
    assert scores.recall.tolist() == [inside(point, y, 2).any() for point in x]
    np.testing.assert_allclose(scores.density, [inside(point, x, 3).sum() / 3 for point in y])
    assert scores.coverage.tolist() == np.array([inside(point, x, 3) for point in y]).any(0).tolist()
    assert 0 < scores.recall.mean() < 1
    assert 0 < scores.coverage.mean() < 1


def test_against_torch_fidelity() -> None:
    real, generated = draw(300, seed=1), draw(300, seed=2, shift=0.7)
    settings = {"prc_neighborhood": 3, "prc_batch_size": 10000, "save_cpu_ram": False, "verbose": False}
    theirs = prc_features_to_metric(generated.double(), real.double(), **settings)
    scores = manifold_scores(real, generated)
    assert scores.precision.mean() == pytest.approx(theirs["precision"], abs=1e-6)
    assert scores.recall.mean() == pytest.approx(theirs["recall"], abs=1e-6)


def test_a_collapsed_generator_is_precise_and_covers_nothing() -> None:
    real = draw(500, seed=1)
    collapsed = real[:1] + 1e-3 * draw(500, seed=2)
    scores = manifold_scores(real, collapsed)
    assert scores.precision.mean() == 1
    assert scores.recall.mean() < 0.02
    assert scores.coverage.mean() < 0.1


def test_equal_distributions_have_their_expected_density_and_coverage() -> None:
    """Naeem et al., section 3.3: both expectations are known whatever the distribution: 1, and
    1 - (N - 1) ... (N - k) / ((M + N - 1) ... (M + N - k)), which is near 1 - 2^-k."""
    scores = manifold_scores(draw(1500, seed=1), draw(1500, seed=2))
    ways = [(1500 - i) / (3000 - i) for i in range(1, 6)]
    assert scores.density.mean() == pytest.approx(1, abs=0.06)
    assert scores.coverage.mean() == pytest.approx(1 - np.prod(ways), abs=0.02)


def test_more_neighbours_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="5-th neighbour needs more than 5 points, got 5"):
        manifold_scores(draw(5, seed=1), draw(9, seed=2))
