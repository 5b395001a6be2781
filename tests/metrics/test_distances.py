import io
import sys

import pytest
import torch

from genlab.metrics import distances
from genlab.metrics.distances import distances_of_pairs, nearest, nearest_others, pieces, rounding_of, squared_distances


def test_against_subtraction_where_the_norms_are_large() -> None:
    points = 1e3 + torch.rand(6, 50)
    expected = (points.double().unsqueeze(1) - points[:4].double()).square().sum(2)
    torch.testing.assert_close(squared_distances(points, points[:4]), expected, rtol=1e-6, atol=1e-6)


def test_a_duplicate_is_a_neighbour_and_the_point_itself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.tensor([[0.0], [0.0], [3.0], [7.0]])
    for piece in (1, 2**22):
        monkeypatch.setattr(distances, "_MAX_ENTRIES", piece)
        squared, numbers = nearest_others(points, num_neighbours=2)
        assert squared.tolist() == [[0, 9], [0, 9], [9, 9], [16, 49]]
        assert numbers[0].tolist() == [1, 2]


@pytest.mark.parametrize(("moment", "is_terminal"), [(0.0, True), (0.0, False), (60.0, True)])
def test_a_terminal_shows_the_pieces_of_a_long_comparison(
    monkeypatch: pytest.MonkeyPatch, moment: float, is_terminal: bool
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(distances, "_MOMENT_SECONDS", moment)
    monkeypatch.setattr(distances, "_MAX_ENTRIES", 6)
    assert list(pieces(5, 3)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert ("/3 [" in terminal.getvalue()) == (moment == 0.0 and is_terminal)


@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_neighbours_in_a_stream_are_those_of_the_whole(batch_size: int) -> None:
    points, candidates = torch.rand(5, 8), torch.rand(30, 8)
    expected = torch.cdist(points.double(), candidates.double()).sort(1)
    found, numbers = nearest(points, candidates.split(batch_size), num_neighbours=3)
    torch.testing.assert_close(found, expected.values[:, :3])
    assert torch.equal(numbers, expected.indices[:, :3])
    assert nearest(points, candidates[:2].split(1), num_neighbours=3)[0].shape == (5, 2)


def test_equal_points_are_at_no_distance_wherever_they_stand() -> None:
    """A matrix product leaves |x|^2 + |x|^2 - 2 x.x, which is not 0 but for luck."""
    points = 100 + torch.rand(300, 37)
    copies = points.repeat(3, 1)[torch.randperm(900)]
    assert nearest(points, copies.split(7), num_neighbours=2)[0].count_nonzero() == 0
    assert nearest_others(copies, num_neighbours=2)[0].count_nonzero() == 0


def test_distances_of_pairs_and_the_bound_on_what_rounding_does_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_MAX_ENTRIES", 50)
    points, others = (1e4 + torch.rand(count, 20, dtype=torch.float64) for count in (9, 8))
    rows, columns = torch.cartesian_prod(torch.arange(9), torch.arange(8)).unbind(1)
    exact = distances_of_pairs(points, others, rows, columns).view(9, 8)
    expected = (points.double().unsqueeze(1) - others.double()).square().sum(2)
    torch.testing.assert_close(exact, expected, rtol=1e-14, atol=0)
    assert 0 < (squared_distances(points, others) - exact).abs().max() <= rounding_of(points, others) < 1e-2
