"""Precision, recall, density and coverage against loops over all pairs and torch-fidelity."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.metrics import distances, manifold
from genlab.metrics.manifold import manifold_scores, precision_and_recall


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
    alone = precision_and_recall(real, generated, num_neighbours=2)
    assert alone == (float(scores.precision.mean()), float(scores.recall.mean()))
    assert 0 < scores.recall.mean() < 1
    assert 0 < scores.coverage.mean() < 1


def test_against_torch_fidelity() -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

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


@pytest.mark.parametrize("num_copies", [5, 8, 9])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_ties_are_inside(num_copies: int, noise: float) -> None:
    """Copies of eight times the same images, with the rounding of features that were computed in other batches."""
    points = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    real, generated = points.repeat(8, 1), points.repeat(num_copies, 1)
    generated = generated[torch.randperm(len(generated), generator=torch.Generator().manual_seed(1))]
    real += noise * draw(400 * 32, seed=3).view(400, 128)
    scores = manifold_scores(real, generated)
    assert scores.precision.mean() == scores.recall.mean() == scores.coverage.mean() == 1
    assert set(scores.density.tolist()) == {8 / 5}  # the balls of its eight copies, over k


def test_points_at_the_edge_of_a_ball_are_inside() -> None:
    lattice = torch.cartesian_prod(*[0.1 * torch.arange(6)] * 3)
    scores = manifold_scores(lattice, lattice + torch.tensor([0.1, 0, 0]))
    assert scores.precision.sum() == scores.recall.sum() == 216


@pytest.mark.slow
def test_standard_errors_are_the_deviations_over_draws() -> None:
    """Of both sets; the deviation over images is 0.55 to 0.75 of it here."""
    found = [manifold_scores(draw(120, seed=2 * i), draw(150, seed=2 * i + 1, shift=0.4)) for i in range(80)]
    for name in ("precision", "recall", "density", "coverage"):
        values = np.array([float(getattr(scores, name).mean()) for scores in found])
        errors = np.array([scores.standard_errors[name] for scores in found])
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(ddof=1), rel=0.25), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        (0.5, {"precision": (0.75, 1.25), "recall": (0.75, 1.25), "density": (0.85, 1.25), "coverage": (0.5, 0.85)}),
        (0.3, {"precision": (0.15, 0.5), "recall": (0.75, 1.25), "density": (0.6, 0.95), "coverage": (0.7, 1.05)}),
        (0.1, {"density": (0.55, 0.85), "coverage": (1.1, 1.5)}),
    ],
)
def test_standard_errors_of_less_diverse_samples_are_off(
    spread: float, expected: dict[str, tuple[float, float]]
) -> None:
    """As docs/measures.md says."""

    def normal(seed: int) -> Tensor:
        return torch.randn(250, 8, generator=torch.Generator().manual_seed(seed))

    found = [manifold_scores(normal(2 * i), spread * normal(2 * i + 1)) for i in range(120)]
    for name, (low, high) in expected.items():
        values = np.array([float(getattr(scores, name).mean()) for scores in found])
        errors = np.array([scores.standard_errors[name] for scores in found])
        assert low < np.sqrt((errors**2).mean()) / values.std(ddof=1) < high, name


@pytest.mark.slow
def test_standard_errors_of_samples_at_one_place_are_the_root_of_one_half_of_the_deviations() -> None:
    found = [manifold_scores(draw(300, seed=2 * i), 1.0 + 0.1 * draw(300, seed=2 * i + 1)) for i in range(80)]
    values = np.array([float(scores.density.mean()) for scores in found])
    errors = np.array([scores.standard_errors["density"] for scores in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(0.5**0.5 * values.std(ddof=1), rel=0.25)


def test_standard_errors_are_of_the_differences_between_random_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "_NUM_DIVISIONS", 3)
    real, generated = draw(50, seed=1), draw(41, seed=2, shift=0.8)
    names = ("precision", "recall", "density", "coverage")
    divisions = zip(manifold._divisions(50, seed=0), manifold._divisions(41, seed=1), strict=True)
    differences = []
    for in_real, in_generated in divisions:
        one = manifold_scores(real[in_real], generated[in_generated])
        other = manifold_scores(real[~in_real], generated[~in_generated])
        differences.append([float(getattr(one, name).mean() - getattr(other, name).mean()) for name in names])
    expected = np.sqrt(np.square(differences).mean(0) / 4)
    assert expected.min() > 0
    assert manifold_scores(real, generated).standard_errors == pytest.approx(dict(zip(names, expected, strict=True)))


def test_the_order_of_the_images_moves_no_score() -> None:
    real, generated = draw(150, seed=1), draw(120, seed=2, shift=0.5)
    by_class = real[:, 0].argsort()
    sorted_scores, scores = manifold_scores(real[by_class], generated), manifold_scores(real, generated)
    assert torch.equal(sorted_scores.recall, scores.recall[by_class])
    assert torch.equal(sorted_scores.density, scores.density)
    for name, error in scores.standard_errors.items():
        assert sorted_scores.standard_errors[name] == pytest.approx(error, rel=0.5)


def test_more_neighbours_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbour needs more than 5 points, got 5"):
        manifold_scores(draw(5, seed=1), draw(9, seed=2))


def test_features_that_are_not_finite_are_refused() -> None:
    real, generated = torch.randn(20, 4), torch.randn(20, 4)
    generated[3, 2] = torch.nan
    for measure in (precision_and_recall, manifold_scores):
        with pytest.raises(ValueError, match="the features of an image are not finite"):
            measure(real, generated)
