"""The quality of samples while a model trains: right by the measures themselves, bitwise, and never on test images."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from genlab import reference_classifier, reference_features
from genlab.commands import samples
from genlab.config.schema import RunConfiguration
from genlab.data.digits import digits
from genlab.errors import StoppedBySignal
from genlab.launch.sweep_folder import SweepFolder, SweepPlan
from genlab.metrics import inception
from genlab.metrics.frechet import fit_gaussian, frechet_distance
from genlab.metrics.generation import draw_images
from genlab.metrics.kernel import kernel_distance
from genlab.metrics.manifold import manifold_scores
from genlab.metrics.quality_observer import QualityObserver
from genlab.metrics.quality_settings import QualitySettings
from genlab.metrics.random_network import RandomNetworkFeatures
from genlab.models.classifier import Classifier
from genlab.reference_classifier import ReferenceClassifier
from genlab.reference_features import quality_observers, with_features
from genlab.training.logger import Logger
from genlab.training.trainer import Trainer
from tests.training.conftest import DEFAULTS, TinyGAN, make_dataset, make_trainer
from tests.training.test_trainer import StopAt, assert_states_equal, last_state, scalars

CPU = torch.device("cpu")
TAG = "quality/frechet_distance_random_network"
REAL = "quality/baseline_real_frechet_distance_random_network"


@pytest.fixture(name="run_folder")
def make_run_folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    return make


class Sampling(TinyGAN):
    """Measures nothing of held-out images that orders models, as GANs do."""

    selection_measure = None


class SamplingUntil(StopAt):
    selection_measure = None


def settings(**changes: Any) -> QualitySettings:
    return QualitySettings(
        **{"interval": None, "num_samples": 20, "features": "auto", "inception_weights": None, **changes}
    )


def measured(folder: Path, model: TinyGAN | None = None, *, dataset: Any = None, **changes: Any) -> Trainer:
    dataset = dataset or make_dataset(binarization="none")
    extractor = RandomNetworkFeatures(dataset.spec, device=CPU)
    quality = partial(QualityObserver, settings=settings(), extractor=extractor)
    return make_trainer(folder, model or Sampling(), dataset=dataset, observers={"quality": quality}, **changes)


def test_values_are_those_of_the_measures_and_choose_the_best_checkpoint(run_folder: Callable[[str], Path]) -> None:
    folder, dataset = run_folder("a"), make_dataset(binarization="none")
    trainer = measured(folder, dataset=dataset, test_at_end=False)
    assert dataset.fingerprint
    dataset._stores["test"] = SimpleNamespace()  # type: ignore[assignment]  # whoever looks at it fails
    summary = trainer.fit(resume=False)
    looks = {line["step"]: line for line in scalars(folder) if TAG in line}
    assert list(looks) == [5, 10, 15, 20]  # with each validation
    best = min(looks, key=lambda step: looks[step][TAG])
    assert (summary.selected_by, summary.best["step"]) == (TAG, best)
    assert trainer.checkpoints.load("best.safetensors", device=CPU)["step"] == best
    assert summary.measures[TAG].direction == "lower"

    extractor = RandomNetworkFeatures(dataset.spec, device=CPU)
    model: Any = trainer.evaluated_model()
    images = draw_images(model, 20, labels=None, seed=0, device=CPU)
    reference = extractor.describe(dataset.subset("validation", 20, seed=0, device=CPU).images).features
    features = extractor.describe(images).features
    scores = manifold_scores(reference, features)
    expected = {
        "frechet_distance": frechet_distance(fit_gaussian(reference), fit_gaussian(features)),
        "kernel_distance": kernel_distance(reference, features)[0],
        "precision": float(scores.precision.mean()),
        "recall": float(scores.recall.mean()),
    }
    found = {name: looks[20][f"quality/{name}_random_network"] for name in expected}
    assert found == pytest.approx(expected, rel=1e-4)
    real = extractor.describe(dataset.subset("train", 20, seed=0, device=CPU).images).features
    of_real = frechet_distance(fit_gaussian(reference), fit_gaussian(real))
    assert [line[REAL] for line in looks.values()] == pytest.approx([of_real] * 4, rel=1e-4)


def test_a_look_changes_no_step_and_resume_is_bitwise(run_folder: Callable[[str], Path]) -> None:
    plain, whole, cut = run_folder("plain"), run_folder("whole"), run_folder("cut")
    make_trainer(plain, Sampling(), dataset=make_dataset(binarization="none")).fit(resume=False)
    measured(whole).fit(resume=False)
    ours, theirs = last_state(whole), last_state(plain)
    assert ours["observers"].pop("quality")["num_images"] == 20
    for state in (ours, theirs):
        del state["best"], state["validations_without_gain"], state["final"]
    assert_states_equal(ours, theirs)

    with pytest.raises(StoppedBySignal):
        measured(cut, SamplingUntil(7)).fit(resume=False)
    measured(cut).fit(resume=True)
    assert_states_equal(last_state(whole), last_state(cut))
    assert scalars(whole) == scalars(cut)


def test_every_look_leaves_pictures_with_the_number_under_them(run_folder: Callable[[str], Path]) -> None:
    class Copying(Sampling):
        """Draws training images, one after another; of a class, constant images."""

        num_classes = 2

        def sample(self, num_samples, *, labels=None, generator=None):
            noise = torch.rand(num_samples, 1, 1, 1, generator=generator).expand(-1, 1, 4, 4)
            if num_samples == 2:
                return (noise + labels.view(-1, 1, 1, 1)) / 2
            return dataset.subset("train", num_samples, seed=1, device=CPU).images

    folder, dataset = run_folder("a"), make_dataset(binarization="none", num_images=20, num_labels_per_class=3)
    trainer = measured(folder, Copying(), dataset=dataset, num_steps=5, test_at_end=False)
    shown: dict[str, torch.Size] = {}
    logger = create_autospec(Logger, instance=True)
    logger.picture.side_effect = lambda tag, image, *, step: shown.update({tag: image.shape})
    trainer._loggers = {"tiny": logger}
    value = trainer.fit(resume=False).best[TAG]
    names = ("class_grid", "nearest_training_images", "samples")
    assert sorted(shown) == [f"quality/{name}" for name in names]
    read = {}
    for name in names:
        with Image.open(folder / "samples" / f"quality_{name}.png") as image:
            assert image.info["Description"].startswith(f"step 5: Frechet distance {value:.4g}, of real images ")
            assert image.info["Description"].endswith("20 training images by random_network") == ("nearest" in name)
            assert shown[f"quality/{name}"][1] == image.height + 16
            read[name] = torch.tensor(list(image.tobytes())).view(image.height, image.width)
    classes = read["class_grid"][30::58, 30::58]
    assert (classes[1] - classes[0]).tolist() == pytest.approx([127.5, 127.5], abs=1)  # the same noise in a column
    rows = read["nearest_training_images"][:464, :406].view(8, 58, 7, 58)
    assert torch.equal(rows[:, 2:, 0, 2:], rows[:, 2:, 2, 2:])  # the nearest is the copied image itself
    assert not torch.equal(rows[:, 2:, 0, 2:], rows[:, 2:, 3, 2:])
    assert read["samples"].shape == (4 * 58 + 2, 5 * 58 + 2)


def test_early_stopping_goes_by_it(run_folder: Callable[[str], Path]) -> None:
    class Constant(Sampling):
        def sample(self, num_samples, *, labels=None, generator=None):
            return torch.full((num_samples, 1, 4, 4), 0.5)

    summary = measured(run_folder("a"), Constant(), early_stopping_patience=2).fit(resume=False)
    assert (summary.status, summary.step) == ("finished", 15)
    assert str(summary.reason).startswith(f"{TAG} has not improved for 2 validations; ")


def test_other_features_than_before_choose_anew(
    run_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = measured(run_folder("a"))
    trainer.summary.best = {TAG: 0.0, "step": 3.0}
    trainer.observers["quality"].load_state_dict(trainer.observers["quality"].state_dict())
    assert trainer.summary.best
    trainer.observers["quality"].load_state_dict(
        {"features": "classifier 0", "num_images": 20, "data": trainer.dataset.fingerprint}
    )
    assert trainer.summary.best == {}
    assert "measured on 20 images by classifier 0, and now on" in caplog.text
    state = trainer.observers["quality"].state_dict()
    assert state["data"] == trainer.dataset.fingerprint
    other_data = {**state, "data": "other"}
    for tag, best in ((TAG, {}), ("validation/x", {TAG: 0.0, "step": 3.0})):
        trainer.summary.best = {TAG: 0.0, "step": 3.0}
        trainer.observers["quality"].run.selection.tag = tag  # of a measure that other features leave comparable
        trainer.observers["quality"].load_state_dict(other_data)
        assert trainer.summary.best == best


def test_images_and_interval_are_those_of_validation_unless_the_settings_say_less(
    run_folder: Callable[[str], Path],
) -> None:
    dataset = make_dataset(binarization="none")
    extractor = RandomNetworkFeatures(dataset.spec, device=CPU)

    def found(limit: int | None, interval: int | None) -> tuple[int, int]:
        run = make_trainer(run_folder(f"{limit}{interval}"), Sampling(), dataset=dataset, validation_images=limit)
        observer = QualityObserver(run, settings=settings(interval=interval), extractor=extractor)
        return observer.num_images, observer.interval

    assert [found(None, None), found(12, 2), found(30, None)] == [(20, 5), (12, 2), (20, 5)]


def test_the_random_network_is_fixed_and_orders_what_the_eye_orders() -> None:
    dataset = digits(
        **{"size": 28, "num_validation": 200, "num_test": 300, "split_seed": 0, "binarization": "none", "flip": False},
        **{"threshold": 0.5, "classes": None, "num_labels_per_class": None, "label_seed": 0},
    )
    extractor = RandomNetworkFeatures(dataset.spec, device=CPU)
    assert extractor.identity == "random_network 1b37b3e0"
    reference, real = (dataset.subset(split, 200, seed=0, device=CPU).images for split in ("validation", "train"))
    worse = (real, F.avg_pool2d(real, 5, 1, 2), real.roll(3, -1), torch.rand(200, 1, 28, 28), real[:1].expand_as(real))
    expected = fit_gaussian(extractor.describe(reference).features)
    distances = [frechet_distance(expected, fit_gaussian(extractor.describe(images).features)) for images in worse]
    assert distances == sorted(distances)
    assert distances[1] > 1.5 * distances[0]


SPEC = make_dataset().spec


def choose(configuration: Any, dataset: Any, folder: Path, *typed: str, model: Any = None) -> Any:
    return quality_observers(
        *(configuration, model or Sampling(), dataset), run_folder=folder, device=CPU, typed=typed, train=pytest.fail
    )


def configuration_of(features: str | None = "auto", **trainer: Any) -> RunConfiguration:
    nothing: dict[str, Any] = {key: {} for key in ("dataset", "optimizer", "schedule", "model")}
    rest: dict[str, Any] = {"num_threads": None, "resume": None, "allow_other_data": False}
    quality = {"interval": None, "num_samples": 20, "features": features, "inception_weights": None}
    return RunConfiguration(
        seed=0,
        device="cpu",
        trainer=DEFAULTS | trainer,
        quality=None if features is None else quality,
        **nothing,
        **rest,
    )


def test_runs_whose_samples_cannot_be_measured_say_so_where_it_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make_dataset(num_images=9)
    assert choose(configuration_of(None), dataset, tmp_path, "quality=off") == {}
    assert choose(configuration_of(validation_interval=0), make_dataset(), tmp_path) == {}
    assert choose(configuration_of(), make_dataset(), tmp_path, model=TinyGAN()) == {}
    assert caplog.records == []
    reason = "dataset noise has 9 validation images, and 10 are the fewest"
    few = "trainer.validation_images is 9, and 10 are the fewest"
    with caplog.at_level(logging.INFO):
        assert choose(configuration_of(), dataset, tmp_path) == {}
        assert choose(configuration_of(validation_images=9), make_dataset(), tmp_path) == {}
    assert [record.getMessage() for record in caplog.records] == [
        f"quality: not measured, so the last checkpoint is used: {each}" for each in (reason, few)
    ]
    caplog.clear()
    assert choose(configuration_of(), dataset, tmp_path, "quality.num_samples=99") == {}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"quality.num_samples=99 has no effect: {reason}"]


@pytest.mark.parametrize(("value", "file"), [("auto", "downloaded.pth"), ("own.pth", "own.pth")])
def test_inception_weights_are_read_alike_in_training_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, file: str
) -> None:
    taken: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(inception, "URL", "file:///downloaded.pth")
    (tmp_path / "genlab/inception").mkdir(parents=True)
    (tmp_path / "genlab/inception/downloaded.pth").touch()

    def features(weights: Path, *, device: torch.device) -> RandomNetworkFeatures:
        taken.append(weights.name)
        return RandomNetworkFeatures(SPEC, device=device)

    for module in (reference_features, samples):
        monkeypatch.setattr(module, "InceptionFeatures", features)
    configuration = configuration_of()
    asked = configuration.changed(quality={**(configuration.quality or {}), "inception_weights": value})
    choose(asked, make_dataset(), tmp_path)
    settings: Any = SimpleNamespace(classifier=None, inception_weights=value)
    samples.feature_extractors(settings, None, None, spec=SPEC, device=CPU)
    assert taken == [file, file]


def test_few_images_are_measured_with_their_bias_said(
    run_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        measured(run_folder("a"), dataset=make_dataset(num_images=12), num_steps=10).fit(resume=False)
    told = [record.getMessage() for record in caplog.records if record.name == QualityObserver.__module__]
    assert len(told) == 1
    assert told[0].startswith("quality: 12 samples and as many validation images every 5 steps, by random_network ")
    assert "% of the time; with so few images distances are too large" in told[0]


def test_auto_takes_the_cached_classifier_but_for_one_that_is_younger_than_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(num_labels_per_class=3)
    classifier = create_autospec(Classifier, instance=True)
    found = ReferenceClassifier(classifier=classifier, weights_id="abc", run_folder=tmp_path, test_error=None)
    monkeypatch.setattr(reference_classifier, "user_cache", lambda: tmp_path)
    monkeypatch.setattr(reference_classifier, "why_no_classifier", lambda dataset: None)
    monkeypatch.setattr(reference_classifier, "_configuration", lambda *data, **where: None)
    home = tmp_path / "classifiers" / f"{reference_classifier._data_name(dataset)}_recipe"
    monkeypatch.setattr(reference_classifier, "_name", lambda *data: home.name)

    def chosen() -> str:
        factory = choose(configuration_of(), dataset, tmp_path / "sweep" / "job")["quality"]
        return str(factory.keywords["extractor"].identity).partition(" ")[0]

    assert chosen() == "random_network"
    home.mkdir(parents=True)
    (home / "summary.json").write_text('{"status": "running"}')
    assert chosen() == "random_network"
    (home / "summary.json").write_text('{"status": "finished"}')
    assert chosen() == "random_network"  # there are no weights
    monkeypatch.setattr(reference_classifier, "load_classifier", lambda *run, **where: found)
    assert chosen() == "classifier"
    finished = (home / "summary.json").stat().st_mtime
    plan = SweepPlan(overrides=(), config_dir=None, jobs=())
    for began, features in ((finished + 1, "classifier"), (finished, "random_network")):
        (tmp_path / "sweep" / "sweep.yaml").unlink(missing_ok=True)
        for began_as_resumed in (began, None):
            SweepFolder(tmp_path / "sweep").write_plan(replace(plan, began=began_as_resumed), command="")
            assert chosen() == features


def test_a_run_folder_keeps_the_features_that_auto_stood_for(run_folder: Callable[[str], Path]) -> None:
    configuration = configuration_of()
    observer = measured(run_folder("a")).observers["quality"]
    assert with_features(configuration, observer) == configuration_of("random_network")
    assert with_features(configuration_of(None), None) == configuration_of(None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval": 0}, r"quality\.interval must be null or at least 1, got 0"),
        ({"num_samples": 9}, r"quality\.num_samples must be at least 10, got 9"),
        (
            {"features": "classifier", "inception_weights": "a.pth"},
            r"inception_weights must be null for .*=classifier",
        ),
    ],
)
def test_settings_without_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)
