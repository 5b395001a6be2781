"""Choices of classes and of labels."""

from dataclasses import asdict, fields, replace
from inspect import signature

import pytest
import torch

from genlab.config.build import bind
from genlab.config.location import config_directory
from genlab.config.plain_yaml import load_plain
from genlab.data.cluttered_mnist import cluttered_mnist
from genlab.data.dataset import Dataset
from genlab.data.digits import digits
from genlab.data.folder import folder
from genlab.data.mnist import emnist, fashion_mnist, kmnist, mnist
from genlab.data.photographs import cifar10, svhn
from genlab.data.preparation import (
    Preparation,
    RawDataset,
    hide_labels,
    prepared,
    select_classes,
    split_by_index,
)
from genlab.data.stacked_mnist import stacked_mnist
from genlab.data.store import Store
from genlab.errors import ConfigurationError, DataError
from genlab.types import UNLABELLED
from tests.data.sources import CPU

DIGITS = tuple("0123456789")
PLAIN = Preparation(binarization="none", threshold=0.5, classes=None, num_labels_per_class=None, label_seed=0)


def _store(labels: list[int]) -> Store:
    return Store(torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None], torch.tensor(labels))


@prepared
def _source(*, labels=(0, 1, 2, 2, 1, 0, 2)) -> RawDataset:
    store = _store(list(labels))
    return RawDataset(
        name="test",
        stores={"train": store, "validation": store, "test": store},
        num_levels=256,
        class_names=("a", "b", "c"),
        source="test",
    )


def _assemble(**choices):
    defaults = {"classes": None, "num_labels_per_class": None, "label_seed": 0}
    return _source(binarization="none", threshold=0.5, **(defaults | choices))


def test_the_arguments_of_a_source_are_its_own_and_those_of_the_preparation():
    bound = bind({"_target_": f"{__name__}._source", **asdict(PLAIN), "flip": True}, "dataset", expects=Dataset)
    assert bound.build().flip
    assert PLAIN.apply(_source.__wrapped__()).fingerprint == _assemble().fingerprint
    with pytest.raises(ConfigurationError, match=r"dataset\.binarization has no choice 'fixed'"):
        bind({**asdict(PLAIN), "_target_": f"{__name__}._source", "binarization": "fixed"}, "dataset")
    with pytest.raises(ConfigurationError, match=r"dataset\.flop is not an argument of _source; did you mean 'flip'"):
        bind({**asdict(PLAIN), "_target_": f"{__name__}._source", "flop": True}, "dataset")


def test_every_shipped_source_offers_the_whole_preparation():
    keys = {field.name for field in fields(Preparation)}
    shared = load_plain((config_directory() / "dataset/preparation/default.yaml").read_text(encoding="utf-8"))
    assert set(shared) == keys
    for source in (cifar10, cluttered_mnist, digits, emnist, fashion_mnist, folder, kmnist, mnist, stacked_mnist, svhn):
        assert keys < set(signature(source).parameters)


def test_classes_are_numbered_in_the_order_given():
    chosen = select_classes(_store([0, 1, 2, 2, 1, 0, 2]), [2, 0])
    images, labels = chosen.gather(torch.arange(len(chosen)))
    assert images.flatten().tolist() == [0, 2, 3, 5, 6]
    assert labels.tolist() == [1, 0, 0, 1, 0]


def test_an_image_without_a_label_is_of_no_chosen_class():
    chosen = select_classes(_store([UNLABELLED, 0, 1]), [0, 1])
    assert chosen.gather(torch.arange(len(chosen)))[1].tolist() == [0, 1]


def test_choice_of_classes_holds_in_every_split_and_is_measured():
    data = _assemble(classes=[2])
    assert data.spec.num_classes == 1
    assert data.class_names == ("c",)
    assert [data.num_images(split) for split in ("train", "validation", "test")] == [3, 3, 3]
    assert data.provenance == "test, classes c, 256 levels, 3/3/3"
    assert data.subset("test", 3, seed=0, device=CPU).labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_same_number_of_labels_stays_in_each_class(seed):
    labels = torch.arange(300) % 10
    kept = hide_labels(labels, class_names=DIGITS, num_labels_per_class=7, seed=seed)
    assert [(kept == index).sum().item() for index in range(10)] == [7] * 10
    visible = kept != UNLABELLED
    assert torch.equal(kept[visible], labels[visible])
    assert torch.equal(kept, hide_labels(labels, class_names=DIGITS, num_labels_per_class=7, seed=seed))
    assert not torch.equal(kept, hide_labels(labels, class_names=DIGITS, num_labels_per_class=7, seed=seed + 1))


def test_only_training_labels_are_hidden():
    data = _assemble(num_labels_per_class=1)
    train = torch.cat([batch.labels for batch in data.batches("train", batch_size=9, seed=0, device=CPU)])
    test = torch.cat([batch.labels for batch in data.batches("test", batch_size=9, seed=0, device=CPU)])
    assert sorted(train.tolist()) == [UNLABELLED] * 4 + [0, 1, 2]
    assert test.tolist() == [0, 1, 2, 2, 1, 0, 2]


def test_hidden_labels_are_said_and_tell_the_data_apart():
    everything, few, others = _assemble(), _assemble(num_labels_per_class=1), _assemble(num_labels_per_class=2)
    assert few.provenance == "test, 1 labels per class, label seed 0, 256 levels, 7/7/7"
    assert len({data.fingerprint for data in (everything, few, others)}) == 3


def test_the_full_labels_stay_at_hand_for_a_reference_classifier():
    everything, few = _assemble(), _assemble(num_labels_per_class=1, label_seed=5)
    assert everything.unreduced is everything
    assert few.unreduced.fingerprint == everything.fingerprint
    assert few.unreduced.provenance == everything.provenance
    assert few.labelled_rows("train").numel() == 3
    assert few.unreduced.labelled_rows("train").tolist() == list(range(7))


def test_few_training_images_are_a_choice_that_larger_ones_contain_and_the_rest_is_left_alone():
    everything = _assemble()
    two, five = (_assemble(num_training=number) for number in (2, 5))
    shown = [set(data._stores["train"].rows.tolist()) for data in (two, five)]
    assert [len(rows) for rows in shown] == [2, 5]
    assert shown[0] < shown[1] < set(range(7))
    assert shown[1] != set(_assemble(num_training=5, label_seed=1)._stores["train"].rows.tolist())
    assert two.provenance == "test, 2 training images, label seed 0, 256 levels, 2/7/7"
    assert two.unreduced.fingerprint == everything.fingerprint != two.fingerprint
    labelled = _assemble(num_training=7, num_labels_per_class=1).labelled_rows("train")
    assert labelled.numel() == 3


def test_the_last_images_validate():
    test = _store([0])
    stores = split_by_index(_store([0, 1, 2, 3, 4]), test, num_validation=2)
    assert stores["train"].gather(torch.arange(3))[0].flatten().tolist() == [0, 1, 2]
    assert stores["validation"].gather(torch.arange(2))[1].tolist() == [3, 4]
    assert stores["test"] is test


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"classes": [3]}, r"dataset\.classes must be indices between 0 and 2 .*, got 3"),
        ({"classes": [1, 1]}, "each once"),
        ({"classes": []}, "at least one class"),
        ({"num_labels_per_class": 3}, r"dataset\.num_labels_per_class must be between 1 and 2 .*, got 3"),
        ({"num_labels_per_class": 3, "classes": [2, 1]}, r"between 1 and 2 \(the training images of class b\), got 3"),
        ({"num_labels_per_class": 0}, "got 0"),
        ({"num_training": 0}, r"dataset\.num_training must be between 1 and 7 .*, got 0"),
        ({"num_training": 8}, "got 8"),
        (
            {"num_training": 2, "num_labels_per_class": 1},
            r"class [abc] has none: choose more images \(dataset\.num_training",
        ),
    ],
)
def test_impossible_choices_are_refused(choices, message):
    with pytest.raises(ConfigurationError, match=message):
        _assemble(**choices)


def test_a_source_that_is_not_whole_is_refused():
    whole = _source.__wrapped__()
    stores = dict(whole.stores)
    del stores["validation"]
    with pytest.raises(DataError, match="dataset test needs a store of each split, and has none of validation; one wi"):
        PLAIN.apply(replace(whole, stores=stores))
    with pytest.raises(DataError, match="dataset test has the label 2 in split train, and names of 2 classes"):
        PLAIN.apply(replace(whole, class_names=("a", "b")))
    with pytest.raises(DataError, match="dataset test has the level 6 in split train, and num_levels=2"):
        PLAIN.apply(replace(whole, num_levels=2))
    train = whole.stores["train"]
    for labels, told in (
        (train.labels - 3, "has the label -3 in split train"),
        (
            train.labels.float(),
            r"needs a whole number for each label, got torch\.float32 of shape \(7,\) in split train",
        ),
        (train.labels[:, None], r"got torch\.int64 of shape \(7, 1\)"),
    ):
        with pytest.raises(DataError, match=told):
            PLAIN.apply(replace(whole, stores={**whole.stores, "train": Store(train.images, labels)}))
    larger = Store(torch.zeros(2, 1, 9, 9, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match=r"of one \(channels, .* in split train, .*\(1, 9, 9\) in split test"):
        PLAIN.apply(replace(whole, stores={**whole.stores, "test": larger}))
    with pytest.raises(DataError, match=r"needs images of torch\.uint8, the levels 0 .*, got torch\.float32"):
        Store(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))


def test_a_choice_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match="no training images"):
        _assemble(labels=(0, 0), classes=[1])
    with pytest.raises(ConfigurationError, match="num_validation must be between 0 and 1"):
        split_by_index(_store([0, 0]), _store([0]), num_validation=2)
