"""The batch stream as a pure function, binarisation as probability, evaluation in order."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.data import dataset as module
from genlab.data.dataset import SPLITS, Dataset
from genlab.data.store import Store
from genlab.errors import ConfigurationError, DataError
from genlab.types import UNLABELLED
from tests.data.sources import CPU, ramp_dataset


def _numbers(batch) -> list[int]:
    return (batch.images[:, 0, 0, 0] * 255).round().int().tolist()


def _grey(level: int, count: int, *, binarization="stochastic", size: int = 20, threshold: float = 0.5) -> Dataset:
    store = Store(torch.full((count, 1, size, size), level, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    return Dataset(
        name="grey",
        stores={"train": store, "validation": store, "test": store},
        num_levels=256,
        class_names=("0",),
        binarization=binarization,
        threshold=threshold,
        source="grey",
    )


@given(num_images=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_image_comes_once_per_epoch(num_images, batch_size, seed):
    stream = ramp_dataset(num_images).stream(batch_size=batch_size, seed=seed, device=CPU)
    num_batches = math.ceil(3 * num_images / batch_size)
    batches = [stream.batch(index) for index in range(num_batches)]
    assert {len(batch.labels) for batch in batches} == {batch_size}
    order = [label for batch in batches for label in batch.labels.tolist()]
    for epoch in range(3):
        assert sorted(order[epoch * num_images : (epoch + 1) * num_images]) == list(range(num_images))


def test_image_and_label_stay_together():
    stream = ramp_dataset(30).stream(batch_size=8, seed=3, device=CPU)
    for index in range(9):
        assert _numbers(stream.batch(index)) == stream.batch(index).labels.tolist()


@given(order=st.permutations(range(9)))
@settings(max_examples=20, deadline=None)
def test_batch_depends_on_seed_and_index_alone(order):
    data = ramp_dataset(7, binarization="stochastic", num_levels=8)
    stream = data.stream(batch_size=5, seed=1, device=CPU)
    shuffled = {index: stream.batch(index) for index in order}
    for index in range(9):
        fresh = data.stream(batch_size=5, seed=1, device=CPU).batch(index)
        assert torch.equal(fresh.images, shuffled[index].images)
        assert torch.equal(fresh.labels, shuffled[index].labels)


@pytest.mark.parametrize(("num_processes", "num_labelled"), [(1, None), (2, None), (2, 4)])
def test_a_batch_larger_than_the_data_set_is_said_once(caplog, num_processes, num_labelled):
    """Also where each process holds fewer images than there are, and where a part of a batch is labelled."""

    def stream(batch_size, num_images):
        caplog.clear()
        data = _partly_labelled(num_images, 20) if num_labelled else ramp_dataset(num_images)
        data.stream(batch_size=batch_size, num_labelled=num_labelled, seed=0, device=CPU, num_processes=num_processes)
        return [record.getMessage() for record in caplog.records]

    drawn = 12 - (num_labelled or 0)
    assert stream(12, drawn) == []
    (said,) = stream(12, drawn - 1) if num_labelled is None else stream(13, drawn)
    assert f"takes {drawn + (num_labelled is not None)} training images and there are" in said
    assert f"more than once; trainer.batch_size={11 if num_labelled is None else 12} or less" in said


def test_more_labelled_images_in_a_batch_than_there_are_is_said(caplog):
    _partly_labelled(23, 4).stream(batch_size=10, num_labelled=5, seed=0, device=CPU)
    assert "takes 5 labelled images and there are 4" in caplog.text
    assert "a smaller trainer.labelled_fraction" in caplog.text


def _partly_labelled(num_images: int, num_labelled: int, *, binarization="none") -> Dataset:
    """Images whose every pixel is the image's number; of the odd ones, the first `num_labelled` have it as label."""
    images = torch.arange(num_images, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 3).contiguous()
    labels = torch.arange(num_images)
    labels[(labels % 2 == 0) | (labels >= 2 * num_labelled)] = UNLABELLED
    return Dataset(
        name="partly",
        stores={split: Store(images, labels) for split in module.SPLITS},
        num_levels=256,
        class_names=tuple(str(index) for index in range(num_images)),
        binarization=binarization,
        threshold=0.5,
        source="partly",
    )


@pytest.mark.slow
@given(data=st.data(), batch_size=st.integers(2, 20), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_semi_supervised_batches_hold_labelled_images_then_any_without_label(data, batch_size, seed):
    num_labelled = data.draw(st.integers(1, batch_size - 1))
    stream = _partly_labelled(23, 4).stream(batch_size=batch_size, seed=seed, device=CPU, num_labelled=num_labelled)
    batches = [stream.batch(index) for index in range(math.ceil(3 * 23 / min(num_labelled, batch_size - num_labelled)))]
    labelled, others = [], []
    for batch in batches:
        assert len(batch.labels) == batch_size
        assert batch.num_labelled == num_labelled
        assert (batch.labels[num_labelled:] == UNLABELLED).all()
        assert _numbers(batch)[:num_labelled] == batch.labels[:num_labelled].tolist()
        labelled += batch.labels[:num_labelled].tolist()
        others += _numbers(batch)[num_labelled:]
    for epoch in range(3):  # each labelled image equally often, and so each image of the split among the others
        assert sorted(labelled[4 * epoch : 4 * (epoch + 1)]) == [1, 3, 5, 7]
        assert sorted(others[23 * epoch : 23 * (epoch + 1)]) == list(range(23))


@given(order=st.permutations(range(9)))
@settings(max_examples=20, deadline=None)
def test_semi_supervised_batch_depends_on_seed_and_index_alone(order):
    data = _partly_labelled(23, 4, binarization="stochastic")
    stream = data.stream(batch_size=7, seed=1, device=CPU, num_labelled=3)
    shuffled = {index: stream.batch(index) for index in order}
    for index in range(9):
        fresh = data.stream(batch_size=7, seed=1, device=CPU, num_labelled=3).batch(index)
        assert torch.equal(fresh.images, shuffled[index].images)
        assert torch.equal(fresh.labels, shuffled[index].labels)
    other = data.stream(batch_size=7, seed=2, device=CPU, num_labelled=3)
    assert any(not torch.equal(other.batch(index).images, shuffled[index].images) for index in range(9))


def test_hiding_labels_in_a_batch_hides_none_in_the_store():
    data = _partly_labelled(23, 4)
    data.stream(batch_size=20, seed=0, device=CPU, num_labelled=1).batch(0)
    assert data.labelled_rows("train").tolist() == [1, 3, 5, 7]


def test_without_a_share_of_labelled_images_every_label_is_delivered():
    batch = _partly_labelled(23, 4).stream(batch_size=23, seed=0, device=CPU).batch(0)
    assert sorted(batch.labels[batch.labels != UNLABELLED].tolist()) == [1, 3, 5, 7]


@pytest.mark.parametrize(("num_labelled", "num_given"), [(0, 4), (7, 4), (-1, 4), (3, 0)])
def test_impossible_shares_of_labelled_images_are_refused(num_labelled, num_given):
    message = r"labelled_fraction needs labelled images, and dataset partly has none"
    if num_given:
        message = rf"labelled images of a batch must be between 1 and 6 .*, got {num_labelled}"
    with pytest.raises(ConfigurationError, match=message):
        _partly_labelled(23, num_given).stream(batch_size=7, seed=0, device=CPU, num_labelled=num_labelled)


def test_epochs_and_seeds_have_different_orders():
    data = ramp_dataset(50)
    stream = data.stream(batch_size=50, seed=0, device=CPU)
    orders = [stream.batch(index).labels.tolist() for index in range(3)]
    orders.append(data.stream(batch_size=50, seed=1, device=CPU).batch(0).labels.tolist())
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("num_labelled", [None, 4])
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_share_every_batch_in_turn(num_labelled, num_processes):
    data = _partly_labelled(23, 4, binarization="none")
    settings = {"batch_size": 12, "seed": 3, "device": CPU, "num_labelled": num_labelled}
    streams = [data.stream(**settings, rank=r, num_processes=num_processes) for r in range(num_processes)]
    whole = data.stream(**settings)
    for index in range(4):
        batch, parts = whole.batch(index), [stream.batch(index) for stream in streams]
        for rank, part in enumerate(parts):
            assert torch.equal(part.images, batch.images[rank::num_processes])
            assert torch.equal(part.labels, batch.labels[rank::num_processes])


def test_processes_share_the_draws_of_stochastic_binarisation():
    data = ramp_dataset(7, binarization="stochastic", num_levels=8)
    batch = data.stream(batch_size=4, seed=0, device=CPU).batch(5)
    part = data.stream(batch_size=4, seed=0, device=CPU, rank=1, num_processes=2).batch(5)
    assert torch.equal(part.images, batch.images[1::2])


@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_processes_share_a_pass_by_whole_batches(num_processes):
    data = ramp_dataset(7)
    whole = list(data.batches("test", batch_size=2, seed=0, device=CPU))
    for rank in range(num_processes):
        own = list(data.batches("test", batch_size=2, seed=0, device=CPU, rank=rank, num_processes=num_processes))
        assert len(own) == len(whole[rank::num_processes])
        for ours, theirs in zip(own, whole[rank::num_processes], strict=True):
            assert torch.equal(ours.images, theirs.images)


def test_stream_does_not_touch_the_default_generator():
    state = torch.get_rng_state()
    data = ramp_dataset(7, binarization="stochastic", num_levels=8)
    data.stream(batch_size=4, seed=0, device=CPU).batch(5)
    data.subset("test", 3, seed=0, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_levels_are_exact_fractions():
    images = ramp_dataset(256).subset("train", 256, seed=0, device=CPU).images
    assert set(images.flatten().tolist()) == {(torch.tensor(k) / 255).item() for k in range(256)}


@pytest.mark.parametrize("level", [0, 1, 51, 128, 254, 255])
def test_mean_of_stochastic_binarisation_is_the_grey_level(level):
    stream = _grey(level, 50).stream(batch_size=50, seed=0, device=CPU)
    draws = torch.cat([stream.batch(index).images for index in range(20)])
    p = level / 255
    assert set(draws.unique().tolist()) <= {0.0, 1.0}
    assert abs(draws.mean().item() - p) <= 4.5 * math.sqrt(p * (1 - p) / draws.numel())


def test_stochastic_pixels_are_independent():
    draws = torch.cat([_grey(128, 400).stream(batch_size=400, seed=0, device=CPU).batch(i).images for i in range(5)])
    centred = draws.flatten(1) - draws.mean()
    correlation = (centred.T @ centred / centred.var() / len(centred)).fill_diagonal_(0)  # between pixels
    assert correlation.abs().max() < 6 / math.sqrt(len(centred))
    between = centred @ centred.T / centred.var() / centred.shape[1]  # between images
    assert between.fill_diagonal_(0).abs().max() < 6.5 / math.sqrt(centred.shape[1])


def test_each_sight_of_an_image_is_a_fresh_draw():
    stream = _grey(128, 1).stream(batch_size=1, seed=0, device=CPU)
    draws = {tuple(stream.batch(index).images.flatten().tolist()) for index in range(20)}
    assert len(draws) == 20


def test_evaluation_draws_are_fixed_by_seed_whatever_the_batch_size():
    data = _grey(100, 23)

    def images(batch_size, seed):
        return torch.cat([b.images for b in data.batches("test", batch_size=batch_size, seed=seed, device=CPU)])

    assert torch.equal(images(23, 0), images(5, 0))
    assert not torch.equal(images(23, 0), images(23, 1))


def test_subset_draws_what_the_full_pass_draws():
    data = ramp_dataset(7, binarization="stochastic", num_levels=11)
    full = torch.cat([b.images for b in data.batches("test", batch_size=4, seed=2, device=CPU)])
    chosen = data.subset("test", 6, seed=2, device=CPU)
    assert torch.equal(chosen.images, full[chosen.labels])


@pytest.mark.parametrize(("threshold", "lowest"), [(0.5, 128), (0.2, 51), (1.0, 255), (1 / 255, 1)])
def test_threshold_is_the_smallest_grey_value_that_is_one(threshold, lowest):
    for level in range(max(lowest - 2, 0), min(lowest + 2, 256)):
        data = _grey(level, 1, binarization="threshold", threshold=threshold, size=1)
        image = data.subset("train", 1, seed=0, device=CPU).images
        assert image.item() == float(level >= lowest)


@pytest.mark.parametrize("binarization", ["threshold", "stochastic"])
def test_binarised_images_say_two_levels(binarization):
    assert _grey(3, 1, binarization=binarization).spec.num_levels == 2
    assert _grey(3, 1, binarization="none").spec.num_levels == 256


def test_batches_keep_order_and_the_last_partial_batch():
    batches = list(ramp_dataset().batches("test", batch_size=4, seed=0, device=CPU))
    assert [len(batch.labels) for batch in batches] == [4, 4, 3]
    assert [label for batch in batches for label in batch.labels.tolist()] == list(range(11))


def test_limit_is_a_random_choice_in_order():
    def labels(seed):
        batches = ramp_dataset().batches("test", batch_size=2, seed=seed, device=CPU, limit=5)
        return [label for batch in batches for label in batch.labels.tolist()]

    assert all(labels(seed) == sorted(set(labels(seed))) and len(labels(seed)) == 5 for seed in range(5))
    assert any(labels(seed) != list(range(5)) for seed in range(5))  # a file's first images are no fair sample
    assert labels(1) == labels(1)


def test_subset_is_a_choice_without_repetition():
    chosen = ramp_dataset().subset("test", 8, seed=0, device=CPU).labels.tolist()
    assert len(set(chosen)) == 8
    assert chosen != sorted(chosen), "in random order: the first of them are a choice as well"
    assert len(ramp_dataset().subset("test", 99, seed=0, device=CPU).labels) == 11


def test_fingerprint_tells_what_changes_the_images():
    same = ramp_dataset().fingerprint
    assert same == ramp_dataset().fingerprint
    assert len(same) == 64
    others = {ramp_dataset(6).fingerprint, ramp_dataset(binarization="stochastic").fingerprint}
    others |= {_grey(3, 1, binarization="threshold", threshold=t).fingerprint for t in (0.5, 0.6)}
    assert len(others | {same}) == 5


def test_view_by_rows_delivers_the_same_as_a_copy():
    base = torch.randint(0, 256, (9, 1, 2, 2), dtype=torch.uint8)
    rows = torch.tensor([7, 1, 4, 4])
    view = Store(base, torch.arange(9)).select(rows)
    images, labels = view.gather(torch.tensor([3, 0, 1]))
    assert torch.equal(images, base[[4, 7, 1]])
    assert labels.tolist() == [4, 7, 1]
    images, labels = view.select(torch.tensor([1, 2])).gather(torch.tensor([0, 1]))
    assert torch.equal(images, base[[1, 4]])
    assert view.num_bytes == 16


def test_stores_that_do_not_fit_stay_where_they_are(monkeypatch):
    store = Store(torch.zeros(10, 1, 4, 4, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    meta = torch.device("meta")
    monkeypatch.setattr("genlab.data.store._free_bytes", lambda device: 640.0)
    assert store.placed(meta).images.device == meta
    monkeypatch.setattr("genlab.data.store._free_bytes", lambda device: 639.0)
    assert store.placed(meta) is store


def test_bad_settings_are_refused():
    with pytest.raises(ConfigurationError, match="batch_size must be at least 1"):
        ramp_dataset().stream(batch_size=0, seed=0, device=CPU)
    with pytest.raises(ConfigurationError, match=r"dataset\.threshold must be above 0"):
        _grey(3, 1, threshold=0.0)
    with pytest.raises(DataError, match="no training images"):
        _grey(3, 0)
    assert set(get_args(module.Split)) == set(module.SPLITS)


@pytest.mark.gpu
@pytest.mark.parametrize("num_labelled", [None, 20])
@pytest.mark.parametrize("binarization", ["none", "threshold", "stochastic"])
def test_every_device_delivers_the_same(binarization, num_labelled):
    data = ramp_dataset(200, binarization=binarization)
    device = torch.device("cuda")
    ours = data.stream(batch_size=64, seed=0, device=CPU, num_labelled=num_labelled)
    theirs = data.stream(batch_size=64, seed=0, device=device, num_labelled=num_labelled)
    for index in (0, 2, 3, 9):
        # A CUDA device divides by the number of levels as a product with its reciprocal: the last digit may differ.
        torch.testing.assert_close(ours.batch(index).images, theirs.batch(index).images.cpu(), rtol=2e-7, atol=0)
        assert torch.equal(ours.batch(index).labels, theirs.batch(index).labels.cpu())


def _rows(flip: bool) -> Dataset:
    """Images of one row 0 1 2, so that an image tells whether it was mirrored."""
    levels = torch.arange(3, dtype=torch.uint8).view(1, 1, 1, 3).expand(64, 1, 1, 3).contiguous()
    store = Store(levels, torch.full((64,), UNLABELLED))
    return Dataset(
        name="rows",
        stores=dict.fromkeys(SPLITS, store),
        num_levels=3,
        class_names=(),
        binarization="none",
        threshold=None,
        source="rows",
        flip=flip,
    )


def test_training_images_are_mirrored_by_seed_and_step_and_evaluated_ones_never():
    def mirrored(data: Dataset, index: int, *, seed: int = 0, **share: int) -> list[bool]:
        images = data.stream(batch_size=32, seed=seed, device=CPU, **share).batch(index).images
        return (images[:, 0, 0, 0] == 1).tolist()

    data = _rows(flip=True)
    first = mirrored(data, 5)
    assert 8 <= sum(first) <= 24
    assert sum(sum(mirrored(data, index)) for index in range(100)) / 3200 == pytest.approx(0.5, abs=0.03)
    assert first == mirrored(data, 5)
    assert first != mirrored(data, 6)
    assert first != mirrored(data, 5, seed=1)
    assert first[1::2] == mirrored(data, 5, rank=1, num_processes=2)
    assert not any(mirrored(_rows(flip=False), 5))
    for split in SPLITS:
        whole = next(data.batches(split, batch_size=64, seed=0, device=CPU))
        assert whole.images[:, 0, 0, 0].sum() == 0
    assert data.subset("train", 9, seed=0, device=CPU).images[:, 0, 0, 0].sum() == 0
    assert data.fingerprint == _rows(flip=False).fingerprint  # the measured images are the same
    assert data.provenance == "rows, mirrored at random in training, 3 levels, 64/64/64"
