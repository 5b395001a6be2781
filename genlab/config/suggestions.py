"""The error line for a mistyped name, with the nearest valid one."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

ELSEWHERE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("trainer.num_epochs",), "epoch epochs n_epochs nepochs max_epochs e"),
    (("trainer.num_steps",), "steps max_steps n_steps nsteps total_steps iters iterations niter num_iters max_iters"),
    (("optimizer.default.lr",), "lr learning_rate learningrate base_lr init_lr alpha"),
    (("optimizer.default.betas",), "beta1 beta2 b1 b2 momentum"),
    (("optimizer.default.weight_decay",), "wd weight_decay l2"),
    (("optimizer",), "optim opt"),
    (("schedule",), "scheduler lr_scheduler lr_schedule"),
    (("trainer.batch_size",), "batch_size batchsize batch bs b per_device_train_batch_size"),
    (("trainer.devices", "devices"), "gpus num_gpus n_gpus ngpu ngpus nproc world_size num_devices num_processes"),
    (("device=cuda",), "cuda gpu use_cuda use_gpu"),
    (("device=cpu",), "cpu no_cuda no_gpu use_cpu"),
    (("device",), "accelerator gpu_id gpu_ids dev"),
    (("dataset.num_workers", "num_threads"), "workers num_workers n_workers nworkers"),
    (("num_threads",), "threads nthreads j"),
    (("trainer.precision",), "precision dtype mixed_precision"),
    (("trainer.precision=bfloat16",), "amp bf16 use_amp"),
    (("trainer.precision=float16",), "fp16 half"),
    (("trainer.ema_decay",), "ema ema_decay ema_rate"),
    (
        ("trainer.gradient_accumulation",),
        "grad_accum accumulation_steps gradient_accumulation_steps accumulate_grad_batches",
    ),
    (("trainer.max_gradient_norm",), "clip clip_grad grad_clip clip_norm max_grad_norm gradient_clip_val"),
    (("trainer.early_stopping_patience",), "patience early_stopping"),
    (("trainer.max_minutes",), "max_time time_limit max_hours"),
    (("trainer.log_interval",), "log_every log_freq log_steps logging_steps print_freq print_every log_every_n_steps"),
    (("trainer.validation_interval",), "eval_every eval_interval eval_freq eval_steps val_interval val_check_interval"),
    (("trainer.sample_interval",), "sample_every sample_freq sample_steps sampling_interval"),
    (("trainer.checkpoint_interval",), "save_every save_interval save_freq save_steps ckpt_interval checkpoint_every"),
    (("resume", "run"), "ckpt checkpoint ckpt_path checkpoint_path load load_from restore resume_from continue"),
    (("resume", "run"), "resume_from_checkpoint run_dir"),
    (("init_from", "run"), "pretrained weights init init_weights warm_start finetune fine_tune transfer"),
    (
        ("dataset.root", "root", "dataset=folder dataset.root=FOLDER"),
        "data data_dir datadir data_path data_root dataroot dataset_path dataset_dir",
    ),
    (("dataset.size",), "image_size img_size imsize resolution"),
    (("name",), "run_name exp_name experiment_name expname tag"),
    (
        ("out", "hydra.run.dir"),
        "o out output outdir out_dir output_dir outf save_dir savedir log_dir logdir work_dir",
    ),
    (("technique",), "techniques tricks"),
    (("seed",), "random_seed manual_seed manualseed rng_seed s"),
    (("model", "run"), "arch net network architecture"),
    (("model.latent.size", "model.latent_size"), "z_dim zdim nz latent_dim latent_size z_size"),
    (("model/objective",), "loss gan_loss loss_type"),
    (("num_samples",), "n n_samples nsamples samples num_images n_images"),
)
"""Settings of genlab with their names in other tools; the first setting that exists is suggested."""
_MOST_LISTED = 5
_HERE = {word: settings for settings, words in ELSEWHERE for word in words.split()}
_VALUES = {
    **dict.fromkeys(("fp16", "half", "16"), "float16"),
    **dict.fromkeys(("bf16", "amp", "mixed"), "bfloat16"),
    **dict.fromkeys(("fp32", "float", "single", "full", "32"), "float32"),
    **dict.fromkeys(("pixelcnn++", "pixelcnnpp"), "pixelcnn_pp"),
}
_FIXED = ("dataset", "experiment", "model", "observer", "optimizer", "recipe", "technique")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def nearest(name: str, valid: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the valid name most similar to the given one, or the only one that it begins; None if nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in valid}
    if (usual := _VALUES.get(name.casefold())) in by_folded:
        return usual
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    longer = [candidate for candidate in by_folded if len(name) > 2 and candidate.startswith(name.casefold())]
    if matches or len(longer) == 1:
        return by_folded[(matches or longer)[0]]
    return None


def nearest_key(key: str, valid: Iterable[str]) -> str | None:
    """Return the valid dotted key nearest to the given one.

    An argument without dots is most likely the whole last part of a key: ``devices`` is nearer to ``trainer.devices``
    than to ``device``. Then a key is compared with those of its own parent, by its last part: ``model.red_size``
    is nearer to ``model.read_size`` than to ``model.write_size`` of any length.
    """
    candidates = sorted(set(valid))
    if (meant := spelled_elsewhere(key, candidates)) is not None:
        return meant
    parent, _, last = key.rpartition(".")
    same_last = [candidate for candidate in candidates if candidate.rpartition(".")[2] == last]
    if not parent and len(same_last) == 1:
        return same_last[0]
    siblings = {candidate.rpartition(".")[2] for candidate in candidates if candidate.rpartition(".")[0] == parent}
    # What begins with _ is Hydra's: model.target does not mean model._target_.
    named = [name for name in siblings if last.startswith("_") or not name.startswith("_")]
    sibling = nearest(last, named, cutoff=0.55 if parent else 0.6)
    if sibling is not None:
        return f"{parent}.{sibling}" if parent else sibling
    if parent and siblings:  # the parent is right, and its common letters would make any of its keys near
        return same_last[0] if len(same_last) == 1 else None
    return nearest(key, same_last) or nearest(key, candidates) or (same_last[0] if len(same_last) == 1 else None)


def spelled_elsewhere(key: str, valid: Collection[str]) -> str | None:
    """Return the setting or override that other tools call by the last part of a key; None if absent."""
    for setting in _HERE.get(key.rpartition(".")[2].casefold().replace("-", "_"), ()):
        if setting.partition("=")[0] in valid or setting.startswith("hydra.run."):
            return setting
    return None


def unknown_key(
    key: str, keys: Collection[str], groups: Collection[str], *, command: str, choices: Mapping[str, Any]
) -> str:
    """Return the error line for an unknown key of a command: the nearest name, else the valid keys.

    Args:
        key: As typed.
        keys: All keys of the command, for the chosen options.
        groups: The groups of options, whose names are keys too.
        command: As typed.
        choices: The chosen option of each group.
    """
    below = [known for known in keys if known.startswith(f"{key}.")]
    if below and key not in groups:
        listed = f"; its keys: {', '.join(below)}" if len(below) <= _MOST_LISTED else ""
        return f"{key} has no options to choose from in {command}{listed}"
    guess = nearest_key(key, [*keys, *groups])
    if guess:
        return f"{key} is not a key; did you mean '{guess}'?"
    parent, _, last = key.rpartition(".")
    within = sorted({known[len(parent) + 1 :].partition(".")[0] for known in keys if known.startswith(f"{parent}.")})
    if parent and within:
        owner = f"{parent}={choices[parent]}" if parent in choices else parent
        listed = ", ".join(name for name in within if not name.startswith("_"))
        # PyTorch's optimisers have more arguments than their YAML files list.
        hint = f"; +{key}=VALUE passes another argument" if parent.startswith("optimizer") else ""
        return f"{owner} has no key {last}" + (f"; its keys: {listed}{hint}" if listed else hint)
    top = sorted({known.partition(".")[0] for known in (*keys, *filter(str.isidentifier, groups))})
    return f"{key} is not a key of {command}; keys: {', '.join(top)}; {command} --cfg job shows all of them"


def misplaced(key: str, value: Any, options: Collection[str], *, takes_several: bool) -> str | None:
    """Return the error line for a value that the group of a key takes, or for a list in place of one option.

    Args:
        key: As typed; the group of ``model.objective`` is ``model/objective``.
        value: As parsed.
        options: Those of the group, if there is one.
        takes_several: False for a group that takes one option.
    """
    group = key.replace(".", "/")
    inside = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    got = f"[{inside}]" if isinstance(value, list) else inside
    if key == "model.techniques" and isinstance(value, str | list):
        return f"{key} must hold keys and values, got {got}; did you mean 'technique=[{inside}]'?"
    if options and isinstance(value, list) and not takes_several:
        return f"{key} must be one option, got {got}; did you mean '{'-m ' * (len(value) > 1)}{key}={inside}'?"
    if not options or group == key or not isinstance(value, str):
        return None
    guess = nearest(value, options)
    hint = f"did you mean '{group}={guess}'?" if guess else f"{group}=NAME takes one of {', '.join(options)}"
    return f"{key} must hold keys and values, got {got}; {hint}"


def fixed_on_resume(keys: Collection[str]) -> str | None:
    """Return the error line for the first key of a resumption that belongs to the run for good; None without one.

    It is needed where the composed configuration, which is not that of the run, does not know the key.

    Args:
        keys: All keys of the command line.
    """
    found = [key for key in keys if re.split(r"[./@]", key)[0] in _FIXED and key != "dataset.root"]
    return cannot_change(found[0]) if found and "resume" in keys else None


def cannot_change(key: str) -> str:
    """Return the error line for a setting that a resumption cannot change."""
    return (
        f"{key} cannot change on resume, which takes trainer.KEY, schedule.KEY, quality.KEY, dataset.root, "
        "logger, allow_other_data, device and num_threads; for anything else start a new run"
    )


def suggestion(name: str, valid: Iterable[str], *, kind: str) -> str:
    """Return ``did you mean 'x'? (kind: x, y)``, the hint of an error message about an unknown name."""
    names = sorted(set(valid))
    guess = nearest(name, names)
    listed = f"{kind}: {', '.join(names)}" if names else f"{kind}: none"
    return f"did you mean '{guess}'? ({listed})" if guess else listed


def missing_brackets(value: str) -> str:
    """Return the brackets that a value opens and does not close."""
    closing: list[str] = []
    for character in value:
        if character in _BRACKETS:
            closing.append(_BRACKETS[character])
        elif closing and character == closing[-1]:
            closing.pop()
    return "".join(reversed(closing))
