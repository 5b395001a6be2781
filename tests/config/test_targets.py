"""Targets: what a run folder may not name, and what nodes become."""

from pathlib import Path

import pytest

from genlab.config.build import bind, build
from genlab.config.targets import find_target
from genlab.errors import ConfigurationError
from genlab.models.gan.techniques.label_smoothing import LabelSmoothing
from tests.conftest import Genlab

ATTENTION_BIAS = "genlab.models.draw.attention.AttentionBias"

HOSTILE = [
    ("os.system", {"command": "touch MARKER"}),
    ("posix.system", {"command": "touch MARKER"}),
    ("logging.os.system", {"command": "touch MARKER"}),
    ("builtins.eval", {}),
    ("builtins.exec", {}),
    ("builtins.open", {"file": "MARKER", "mode": "w"}),
    ("subprocess.call", {"args": ["touch", "MARKER"]}),
    ("subprocess.Popen", {"args": ["touch", "MARKER"]}),
    ("functools.partial", {}),
    ("importlib.import_module", {"name": "this"}),
    ("pickle.loads", {}),
    ("shutil.copytree", {"src": ".", "dst": "MARKER"}),
    ("pathlib.Path.touch", {"self": "MARKER"}),
    ("torch.load", {"f": "x", "weights_only": False}),
    ("torch.hub.load", {"repo_or_dir": "x", "model": "y"}),
    ("torch.utils.collect_env.run", {"command": "touch MARKER"}),
    ("torch.optim.torch.load", {"f": "x"}),
    ("numpy.load", {"file": "x", "allow_pickle": True}),
    ("genlab.cli.os.system", {"command": "touch MARKER"}),
    ("genlab.models.base.nn.Module", {}),
    ("genlab.models.draw.draw.torch.load", {"f": "x"}),
    ("genlab.data.digits.np.save", {"file": "MARKER", "arr": [1]}),
    ("genlab.storage.replace_atomically", {"path": "MARKER", "content": "x"}),
    ("genlab.data.store.Store.__init__", {}),
    ("genlab.training.trainer.Trainer", {}),
    ("genlab.metrics.inception.InceptionFeatures", {}),
    ("genlab.training.logging.EventLog", {}),
    ("genlab.models.draw.draw._hidden", {}),
    ("genlab.models", {}),
    ("genlab", {}),
    ("", {}),
    ("genlab.models.draw.draw.DRAW; import os", {}),
]
NAMES = [target for target, _ in HOSTILE]


@pytest.mark.parametrize(("target", "arguments"), HOSTILE, ids=NAMES)
def test_a_hostile_target_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, arguments: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    for node in (
        {"_target_": target, **arguments},
        {"_target_": target, "_partial_": True, **arguments},
        {"_target_": "torch.nn.LeakyReLU", "negative_slope": {"_target_": target, **arguments}},
        {"_target_": "torch.nn.LeakyReLU", "negative_slope": [{"_target_": target, **arguments}]},
    ):
        with pytest.raises(ConfigurationError, match="_target_"):
            bind(node, "model", is_trusted=False)
    assert list(tmp_path.iterdir()) == []


def test_a_package_of_the_users_own_needs_leave_in_a_run_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts.py").write_text(
        "import os\nclass Part:\n    def __init__(self, *, size: int) -> None:\n        self.size = size\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "my_parts.Part", "size": 3}
    assert build(node, "model").size == 3
    with pytest.raises(ConfigurationError, match="set GENLAB_ALLOW=its_package"):
        bind(node, "model", is_trusted=False)
    monkeypatch.setenv("GENLAB_ALLOW", "other, my_parts")
    assert bind(node, "model", is_trusted=False).build().size == 3
    with pytest.raises(ConfigurationError, match=r"model.sise is not an argument of Part; did you mean 'size'"):
        bind({"_target_": "my_parts.Part", "sise": 3}, "model")
    with pytest.raises(ConfigurationError, match="module"):
        bind({"_target_": "my_parts.os"}, "model")
    with pytest.raises(ConfigurationError, match="there is no module my_prats"):
        bind({"_target_": "my_prats.Part"}, "model")


@pytest.mark.parametrize("is_trusted", [True, False])
def test_any_module_optimizer_or_schedule_of_torch_may_be_named(is_trusted: bool) -> None:
    import torch

    for name in ("nn.LeakyReLU", "nn.Hardtanh", "nn.GroupNorm", "optim.Adam", "optim.lr_scheduler.StepLR"):
        found = find_target(f"torch.{name}", "model", is_trusted=is_trusted)
        assert found.__name__ == name.rpartition(".")[2]
    with pytest.raises(ConfigurationError, match=r"torch\.nn has no LeakyRelu, did you mean LeakyReLU"):
        find_target("torch.nn.LeakyRelu", "model", is_trusted=is_trusted)
    assert find_target("torch.nn.ReLU", "model") is torch.nn.ReLU


def test_an_observer_of_genlab_may_be_named_in_a_run_folder() -> None:
    found = find_target("genlab.metrics.quality_observer.QualityObserver", "observer.mine", is_trusted=False)
    assert found.__name__ == "QualityObserver"


def test_binding_reports_the_full_key_the_rule_and_the_way_out() -> None:
    node = {"_target_": "torch.optim.Adam", "lr": 1e-3}
    assert bind(node, "optimizer.default", run_time=("params",)).arguments == {"lr": 1e-3}
    for change, message in [
        ({"betaz": [0.9, 0.99]}, r"optimizer.default.betaz is not an argument of Adam; did you mean 'betas'"),
        ({"eps": "small"}, r"optimizer.default.eps must be a number, got 'small'"),
        ({"params": []}, r"optimizer.default.params is supplied by the program"),
        ({"_args_": [1]}, r"optimizer.default._args_ has no effect"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            bind({**node, **change}, "optimizer.default", run_time=("params",))
    with pytest.raises(ConfigurationError, match=r"read_bias.log_gamma is missing"):
        bind(
            {"_target_": ATTENTION_BIAS, "log_variance": 0.0, "log_stride": 0.0},
            "model.read_bias",
        )


def test_a_module_without_arguments_of_its_own_takes_none() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.conditioning\.sizes is not an argument of Unconditional"):
        bind({"_target_": "genlab.models.gan.conditioning.Unconditional", "sizes": 1}, "model.conditioning")


def test_a_class_that_lacks_methods_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"must name a whole class: Observer lacks observe"):
        bind({"_target_": "genlab.training.observer.Observer", "interval": 1}, "observer.own", run_time=("run",))


def test_nodes_become_plain_objects_and_partials() -> None:
    bias = {
        "_target_": ATTENTION_BIAS,
        "log_variance": 1,
        "log_stride": 0.0,
        "log_gamma": 2.0,
    }
    built = build(bias, "model.read_bias")
    assert (built.log_variance, built.log_stride, built.log_gamma) == (1.0, 0.0, 2.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+model.techniques.x._target_=torch.nn.ReLU"],
            "model.techniques.x._target_ must name a Technique, or a function annotated to return one, got torch.nn.",
        ),
        (
            ["+model.techniques.x._target_=genlab.models.gan.objectives.Hinge"],
            "model.techniques.x._target_ must name a Technique",
        ),
        (
            ["technique=[label_smoothing]", "+model.techniques.x._target_=torch.nn.ReLU"],
            "model.techniques.x._target_ must name a Technique",
        ),
        (
            ["technique=[label_smoothing]", "+model.techniques.x=3"],
            "model.techniques.x must be Technique or null, got 3",
        ),
        (
            ["technique=[label_smoothing]", "+model.techniques.label_smoothing._partial_=true"],
            "model.techniques.label_smoothing._partial_ must be false: a finished Technique stands here",
        ),
        (
            ["model.objective._target_=genlab.models.gan.conditioning.Unconditional"],
            "model.objective._target_ must name a Objective",
        ),
        (
            ["+model.objective._partial_=true"],
            "model.objective._partial_ must be false: a finished Objective stands here",
        ),
    ],
)
def test_a_part_of_a_model_is_of_the_kind_that_its_place_asks_for(
    genlab: Genlab, tmp_path: Path, overrides: list[str], message: str
) -> None:
    outcome = genlab("train", "model=gan", *overrides)
    assert outcome.code == 2
    assert outcome.errors.startswith(f"genlab: error: {message}"), outcome.errors
    assert len(outcome.errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_nodes_of_a_mapping_become_the_objects_that_its_annotation_asks_for() -> None:
    smoothing = {"_target_": "genlab.models.gan.techniques.label_smoothing.LabelSmoothing", "real_target": 0.9}
    node = {"_target_": "genlab.models.gan.gan.GAN", "techniques": {"smoothing": smoothing, "off": None}}
    techniques = bind({**node, "_partial_": True}, "model").factory().keywords["techniques"]
    assert isinstance(techniques["smoothing"], LabelSmoothing)
    assert techniques["off"] is None
    with pytest.raises(ConfigurationError, match=r"model\.techniques\.smoothing\.target is not an argument of LabelSm"):
        bind({**node, "_partial_": True, "techniques": {"smoothing": {**smoothing, "target": 1}}}, "model")
