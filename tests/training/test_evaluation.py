import math

import pytest
import torch
from torch import Tensor, nn

from genlab.data.dataset import Dataset
from genlab.data.store import Store
from genlab.measures import Measure
from genlab.models.base import coupling_layer
from genlab.training.evaluation import (
    Average,
    Batching,
    average_measures,
    averages_of_split,
    batching_for,
    evaluation_batch_size,
    scalar_means,
    with_noise_of_their_own,
)
from genlab.types import Batch
from tests.pair import NUM_PROCESSES, Pair
from tests.training.conftest import TinyGAN, make_dataset


def batches(sizes: list[int]) -> list[Batch]:
    images = torch.arange(sum(sizes), dtype=torch.float32).view(-1, 1, 1, 1)
    labels = torch.full((sum(sizes),), -1)
    return [Batch(images=i, labels=part) for i, part in zip(images.split(sizes), labels.split(sizes), strict=True)]


def test_the_last_partial_batch_counts_by_its_size() -> None:
    """A mean of batch means would give (0.5 + 2.5 + 4) / 3; a division by the wrong batch count is off too."""
    average = average_measures(lambda batch: {"x": batch.images.flatten()}, batches([2, 2, 1]))["x"]
    assert average.mean == 2.0
    assert average.num_examples == 5
    assert average.standard_error == pytest.approx(math.sqrt(2.5) / math.sqrt(5))


def test_coupled_images_have_the_error_of_the_means_of_their_batches() -> None:
    """Images of a batch with one value are one draw: as if each batch were an example."""
    of_batch = [0.5, 2.0, 4.0, 1.0]
    given = batches([3, 3, 3, 3])

    def evaluate(batch: Batch) -> dict[str, Tensor]:
        values = torch.full((len(batch.images),), of_batch[int(batch.images[0]) // 3])
        return {"x": values, "curve": torch.stack((values, -values), 1)}

    found = average_measures(evaluate, given, couples_images=True)
    expected = torch.tensor(of_batch).std().item() / 2
    assert found["x"].mean == pytest.approx(torch.tensor(of_batch).mean().item())
    assert found["x"].standard_error == pytest.approx(expected)
    assert found["curve"].standard_error == pytest.approx([expected, expected])
    unequal = average_measures(lambda batch: {"x": batch.images.flatten()}, batches([2, 2, 1]), couples_images=True)
    deviations = [0.4 * (0.5 - 2), 0.4 * (2.5 - 2), 0.2 * (4 - 2)]
    assert unequal["x"].standard_error == pytest.approx(math.sqrt(1.5 * sum(value**2 for value in deviations)))
    alone = average_measures(lambda batch: {"x": batch.images.flatten()}, batches([5]), couples_images=True)["x"]
    assert alone.mean == 2.0
    assert math.isnan(alone.standard_error)  # type: ignore[arg-type]


def test_curves_are_averaged_point_by_point() -> None:
    average = average_measures(
        lambda batch: {"c": torch.cat([batch.images.view(-1, 1), -batch.images.view(-1, 1)], 1)}, batches([3, 2])
    )["c"]
    assert average.mean == [2.0, -2.0]


def test_the_means_that_are_numbers_leave_the_curves_out() -> None:
    number, curve = (Average(mean=mean, standard_error=mean, num_examples=2) for mean in (1.0, [1.0, 2.0]))
    assert scalar_means({"x": number, "c": curve}) == {"x": 1.0}


def test_sums_do_not_lose_precision() -> None:
    big = average_measures(lambda batch: {"x": torch.full((len(batch.images),), 1e8 + 1)}, batches([1000] * 3))["x"]
    assert big.mean == float(torch.tensor(1e8 + 1))


def test_a_constant_has_no_error_and_a_small_deviation_has_its_own() -> None:
    """The difference of mean squares leaves 1e-7 of the one and nothing of the other."""
    for value in (0.1, 1e8 + 1 / 3, -math.pi):
        exact = torch.tensor(value, dtype=torch.float64)
        average = average_measures(lambda batch, x=exact: {"x": x.expand(len(batch.images))}, batches([7, 7, 3]))["x"]
        assert (average.mean, average.standard_error) == (value, 0.0)
    average = average_measures(lambda batch: {"x": 1e8 + 1e-4 * batch.images.flatten().double()}, batches([2, 2, 1]))
    assert average["x"].standard_error == pytest.approx(1e-4 * math.sqrt(2.5) / math.sqrt(5), rel=1e-3)


def test_a_value_that_is_not_finite_makes_no_other_so() -> None:
    for first in (math.inf, 1.0):
        values = torch.tensor([first, 2.0, math.inf])
        average = average_measures(lambda batch, x=values: {"x": x, "y": batch.images.flatten()}, batches([3]))
        assert (average["x"].mean, average["y"].mean) == (math.inf, 1.0)


def test_the_averages_do_not_depend_on_the_batches() -> None:
    values = torch.rand(23, generator=torch.Generator().manual_seed(0))

    def averaged(sizes: list[int]) -> Average:
        return average_measures(lambda batch: {"x": values[batch.images.flatten().long()]}, batches(sizes))["x"]

    assert averaged([23]) == averaged([5, 5, 5, 8]) == averaged([1] * 23)


def test_a_measure_that_needs_labels_is_averaged_over_the_labelled_examples() -> None:
    values, bad = torch.tensor([1.0, math.nan, 2.0, math.nan, 6.0]), torch.tensor([1.0, 1.0, math.nan, 1.0, 1.0])
    error = Measure(unit="1", kind="exact", direction="lower", needs_label=True)
    declarations = {"error": error, "diverged": error}

    def averaged(labels: list[int]) -> dict[str, Average]:
        given = [
            Batch(images=batch.images, labels=own)
            for batch, own in zip(batches([2, 2, 1]), torch.tensor(labels).split(2), strict=True)
        ]

        def evaluate(batch: Batch) -> dict[str, Tensor]:
            rows = batch.images.flatten().long()
            return {"error": values[rows], "diverged": bad[rows], "of_all": values[rows]}

        return average_measures(evaluate, given, declarations=declarations)

    partly = averaged([2, -1, 0, -1, 1])
    assert partly["error"] == Average(mean=3.0, standard_error=pytest.approx(math.sqrt(7 / 3)), num_examples=3)
    assert math.isnan(partly["diverged"].mean), "a NaN of a labelled example"
    assert (math.isnan(partly["of_all"].mean), partly["of_all"].num_examples) == (True, 5)
    none = averaged([-1] * 5)["error"]
    assert (math.isnan(none.mean), none.num_examples) == (True, 0)


def test_a_reduced_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="per example"):
        average_measures(lambda batch: {"x": batch.images.mean()}, batches([2]))
    with pytest.raises(ValueError, match="no images"):
        average_measures(lambda batch: {}, [])


# ---- images that influence each other


def measured(batching: Batching, *, limit: int | None = None) -> tuple[list[Tensor], dict[str, Average]]:
    """Images of each batch as a model sees them, and averages: of the size of the batch, and of the images."""
    seen = []

    def evaluate(batch: Batch) -> dict[str, Tensor]:
        seen.append(batch.images.flatten(1))
        assert len(batch.labels) == len(batch.images)
        return {
            "size": torch.full((len(batch.images),), float(len(batch.images))),
            "mean": batch.images.mean((1, 2, 3)),
        }

    averages = averages_of_split(
        evaluate,
        make_dataset(binarization="none"),  # 37 images
        "test",
        declarations={},
        batching=batching,
        seed=0,
        device=torch.device("cpu"),
        limit=limit,
    )
    return seen, averages


@pytest.mark.parametrize("limit", [None, 21])
def test_coupled_images_come_in_full_batches_of_mixed_images_and_each_counts_once(limit: int | None) -> None:
    _, expected = measured(Batching(size=8), limit=limit)
    together, found = measured(Batching(size=8, couples_images=True), limit=limit)
    assert found["size"].mean == 8.0
    assert expected["size"].mean < 8
    assert found["mean"].num_examples == (limit or 37)
    assert found["mean"].mean == pytest.approx(expected["mean"].mean, rel=1e-12)
    in_order = make_dataset(binarization="none").batches("test", batch_size=8, seed=0, device=torch.device("cpu"))
    assert not torch.equal(together[0], next(in_order).images.flatten(1)), "files may be ordered by class"
    assert torch.equal(together[0], measured(Batching(size=8, couples_images=True), limit=limit)[0][0])


def test_a_training_set_smaller_than_the_batch_fills_it_again_and_again() -> None:
    (batch,), found = measured(Batching(size=100, couples_images=True), limit=2)
    assert len(batch) == 100  # as in training, whose batches repeat images too
    assert torch.equal(batch[2:39], batch[39:76])
    assert found["size"].num_examples == 2


def test_the_company_of_an_image_is_of_training_with_its_labels() -> None:
    train, test = (
        Store(torch.full((2, 1, 4, 4), level, dtype=torch.uint8), torch.full((2,), level)) for level in (0, 1)
    )
    dataset = Dataset(
        name="two",
        stores={"train": train, "validation": test, "test": test},
        num_levels=2,
        class_names=("black", "white"),
        binarization="fixed",
        threshold=None,
        source="two",
    )
    seen: list[Batch] = []

    def evaluate(batch: Batch) -> dict[str, Tensor]:
        seen.append(batch)
        return {"x": batch.images.mean((1, 2, 3))}

    averages_of_split(
        evaluate,
        dataset,
        "test",
        declarations={},
        batching=Batching(size=5, couples_images=True),
        seed=0,
        device=torch.device("cpu"),
    )
    assert seen[0].images[:, 0, 0, 0].tolist() == seen[0].labels.tolist() == [1, 1, 0, 0, 0]


def test_the_noise_of_a_batch_is_of_its_place_in_the_pass_and_of_the_purpose() -> None:
    def noise(purpose: str, *, first: int = 0, stride: int = 1) -> list[float]:
        given = batches([1] * 6)[first::stride]
        passed = with_noise_of_their_own(
            given, seed=3, purpose=purpose, device=torch.device("cpu"), first=first, stride=stride
        )
        return [torch.rand(()).item() for _ in passed]

    whole = noise("test")
    assert len({*whole, *noise("validation")}) == 12
    assert noise("test", first=1, stride=2) == whole[1::2]


class Coupled(TinyGAN):
    couples_images = True


class WithoutRunningStatistics(TinyGAN):
    def __init__(self) -> None:
        super().__init__()
        self.generator[1] = nn.BatchNorm1d(16, track_running_stats=False)


class ComparedFeatures(nn.Module):
    couples_images = True


@pytest.mark.parametrize("kind", [Coupled, WithoutRunningStatistics])
def test_a_model_that_couples_images_is_measured_at_the_size_of_its_training(kind: type[TinyGAN]) -> None:
    batching = batching_for(kind(), training_size=8, size=250)
    assert (batching.size, batching.couples_images, batching.protocol) == (8, True, "in random batches of 8")


def test_the_images_of_a_pack_share_a_value() -> None:
    class Packing(TinyGAN):
        group_size = 2

    assert batching_for(Packing(), training_size=8, size=250) == Batching(size=250, group_size=2)


@pytest.mark.parametrize(("trained", "measured"), [(8, 32), (64, 256), (100, 256), (300, 300)])
def test_a_model_may_be_measured_in_larger_batches_than_it_is_trained_on(trained: int, measured: int) -> None:
    class Glimpsing(TinyGAN):
        evaluated_together = 256

    assert evaluation_batch_size(Glimpsing(), trained) == measured
    assert evaluation_batch_size(TinyGAN(), trained) == trained


def test_other_models_are_measured_at_any_size() -> None:
    model = TinyGAN()  # with batch normalisation, which evaluation does not take from the batch
    assert batching_for(model, training_size=8, size=250) == Batching(size=250)
    assert Batching(size=250).protocol is None
    assert coupling_layer(model.generator, training=True) is model.generator[1]
    assert coupling_layer(model.discriminator, training=True) is None
    model.discriminator.append(ComparedFeatures())
    assert model.couples_images


# ---- several processes


def averaged_together() -> dict[str, Average]:
    """A constant that no float holds exactly, the mean of each image, and noise."""

    def evaluate(batch: Batch) -> dict[str, Tensor]:
        means = batch.images.double().mean((1, 2, 3))
        return {"third": torch.full_like(means, 1 / 3), "mean": means, "noise": torch.rand_like(means)}

    return averages_of_split(
        evaluate,
        make_dataset(binarization="none"),
        "test",
        declarations={},
        batching=Batching(size=5),
        seed=0,
        device=torch.device("cpu"),
    )


def test_images_that_share_a_value_count_once_in_its_standard_error() -> None:
    """Of 50 pairs, each of which has one value, the mean deviates as that of 50 values."""
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()

    def error(copies: int) -> float:
        dataset = make_dataset(num_images=50 * copies)
        shared = iter(values.repeat_interleave(copies).split(10 * copies))

        def evaluate(batch: Batch) -> dict[str, Tensor]:
            x = next(shared)
            return {"x": x, "curve": torch.stack((x, 3 * x), 1)}

        found = averages_of_split(
            evaluate,
            dataset,
            "validation",
            declarations={},
            batching=Batching(size=10 * copies, group_size=copies),
            seed=0,
            device=torch.device("cpu"),
        )
        single = found["x"].standard_error
        assert isinstance(single, float)
        assert found["curve"].standard_error == pytest.approx([single, 3 * single])
        return single

    assert error(2) == pytest.approx(error(1), rel=0.02)


def test_the_averages_of_two_processes_are_those_of_one_to_the_last_bit(pair: Pair) -> None:
    alone = averaged_together()
    assert (alone["third"].mean, alone["third"].standard_error) == (1 / 3, 0.0)
    assert pair.run(averaged_together) == [alone] * NUM_PROCESSES
