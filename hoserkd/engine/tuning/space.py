"""What is searched, and by which sampler."""

import itertools
from collections.abc import Mapping
from typing import Any

import optuna
from pydantic import ValidationError

from hoserkd.engine.config import EngineConfig, StudentConfig, TuneConfig
from hoserkd.errors import ConfigError

MOST_COMBINATIONS = 2000
"""So many combinations of choices are checked before the study begins."""


def searched_ranges(config: EngineConfig) -> tuple[str, ...]:
    """Return the settings of `distill` that are drawn from a range."""
    names = ("lambda_kl", "temperature", "window")
    return names if config.distill.source == "lmtad" else names[:2]


def parameter_names(config: EngineConfig) -> tuple[str, ...]:
    """Return the names of all that is searched: ranges, then choices by dotted key."""
    return (*searched_ranges(config), *_choices(config.tune))


def check_space(config: EngineConfig) -> None:
    """Check that every combination of choices makes settings.

    Raises:
        ConfigError: one does not; says which.
    """
    choices = _choices(config.tune)
    for key in searched_ranges(config):
        if f"distill.{key}" in choices:
            raise ConfigError(f"tune.choices.distill.{key}: it is searched in tune.{key} already")
    combinations = itertools.islice(itertools.product(*choices.values()), MOST_COMBINATIONS)
    for values in combinations if choices else ():
        with_choices(config, dict(zip(choices, values, strict=True)))
    for window in config.tune.window if config.distill.source == "lmtad" else ():
        if not 1 <= window <= 8:
            raise ConfigError(f"tune.window: expected windows from 1 to 8, found {window}")


def suggest(trial: optuna.Trial, config: EngineConfig) -> None:
    """Let the sampler choose lambda (log scale), temperature, window, and the choices."""
    tune = config.tune
    trial.suggest_float("lambda_kl", *tune.lambda_kl, log=True)
    trial.suggest_float("temperature", *tune.temperature)
    if "window" in searched_ranges(config):
        trial.suggest_int("window", *tune.window)
    for key, values in _choices(tune).items():
        trial.suggest_categorical(key, values)


def with_setting(config: EngineConfig, params: Mapping[str, Any] | None, epochs: int,
                 seed: int) -> EngineConfig:
    """Return the settings of one training; `params` None means vanilla."""
    if params is None:
        distill: dict[str, Any] = {"enabled": False}
    else:
        config = with_choices(config, {k: v for k, v in params.items() if "." in k})
        distill = {"enabled": True, **{k: v for k, v in params.items() if "." not in k}}
    return config.model_copy(update={
        "distill": config.distill.model_copy(update=distill),
        "train": config.train.model_copy(update={"epochs": epochs}),
        "seed": seed,
    })


def with_choices(config: EngineConfig, chosen: Mapping[str, Any]) -> EngineConfig:
    """Return the settings with values by dotted key.

    Raises:
        ConfigError: a key does not exist, or its value does not fit.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in chosen.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    changed = {}
    for section, values in sections.items():
        present = getattr(config, section)
        if section == "student":
            values = _with_widths(config.student, values)
        try:
            changed[section] = type(present).model_validate(present.model_dump() | values)
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(map(str, (section, *found["loc"])))
            message = found["msg"].removeprefix("Value error, ")
            raise ConfigError(f"tune.choices.{where}: {message} (in {values})") from error
    return config.model_copy(update=changed)


def _with_widths(student: StudentConfig, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values, and with a chosen `hidden_dim` the widths that must add up to it."""
    parts = ("road_id_dim", "attribute_dim")
    width = values.get("hidden_dim")
    if not isinstance(width, int) or any(part in values for part in parts):
        return values
    scaled = {part: getattr(student, part) * width for part in parts}
    if any(value % student.hidden_dim for value in scaled.values()):
        return values
    return {part: value // student.hidden_dim for part, value in scaled.items()} | values


def build_sampler(tune: TuneConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that the settings name.

    Of a small study only a third is drawn blindly before the model of the objective is used.
    """
    blind = max(2, min(10, tune.trials // 3))
    match tune.sampler:
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=blind,
                                              constant_liar=True)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=blind)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)


def build_pruner(tune: TuneConfig) -> optuna.pruners.BasePruner:
    """Return Hyperband over epochs; with several objectives nothing can be pruned."""
    if len(tune.objectives) > 1 or tune.objectives[0] == "throughput":
        return optuna.pruners.NopPruner()
    return optuna.pruners.HyperbandPruner(
        min_resource=min(tune.min_resource, tune.epochs), max_resource=tune.epochs,
        reduction_factor=tune.reduction_factor)


def _choices(tune: TuneConfig) -> dict[str, tuple[Any, ...]]:
    return {f"{section}.{name}": values for section, settings in tune.choices.items()
            for name, values in settings.items()}
