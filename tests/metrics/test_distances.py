import pytest
import torch

from genlab.metrics import distances
from genlab.metrics.distances import nearest, neighbour_radii, squared_distances


def test_against_subtraction_where_the_norms_are_large() -> None:
    points = 1e3 + torch.rand(6, 50)
    expected = (points.double().unsqueeze(1) - points[:4].double()).square().sum(2)
    torch.testing.assert_close(squared_distances(points, points[:4]), expected, rtol=1e-6, atol=1e-6)


def test_a_duplicate_is_a_neighbour_and_the_point_itself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.tensor([[0.0], [0.0], [3.0], [7.0]])
    for piece in (1, 2**22):
        monkeypatch.setattr(distances, "_MAX_ENTRIES", piece)
        assert neighbour_radii(points, num_neighbours=1).tolist() == [0, 0, 9, 16]
        assert neighbour_radii(points, num_neighbours=2).tolist() == [9, 9, 9, 49]


@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_neighbours_in_a_stream_are_those_of_the_whole(batch_size: int) -> None:
    torch.manual_seed(0)
    points, candidates = torch.rand(5, 8), torch.rand(30, 8)
    expected = torch.cdist(points.double(), candidates.double()).sort(1)
    found, numbers = nearest(points, candidates.split(batch_size), num_neighbours=3)
    torch.testing.assert_close(found, expected.values[:, :3])
    assert torch.equal(numbers, expected.indices[:, :3])
    assert nearest(points, candidates[:2].split(1), num_neighbours=3)[0].shape == (5, 2)
