"""The settings of a tuning study."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from hoserkd.engine.config_base import (
    COLDEST,
    HOTTEST,
    MAX_COUNT,
    MAX_SECONDS,
    MAX_SEED,
    MAX_WEIGHT,
    Section,
    named,
)

Range = tuple[float, float]
Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT)]
Temperature = Annotated[float, Field(ge=COLDEST, le=HOTTEST)]
Window = Annotated[int, Field(ge=1, le=8)]
Choice = bool | int | float | str
Objective = Literal["accuracy", "calibration", "throughput"]
Sampler = Literal["cmaes", "tpe", "gp", "random"]


class TuneConfig(Section):
    """The two-phase study (ENGINE.md section 9)."""

    study: Annotated[str, named(60)] = "study"
    """What the study is called; its runs bear the name too."""
    storage: str | None = None
    """Where the study is kept: a journal file that all workers reach, or an Optuna URL such as
    sqlite:///study.db or postgresql://host/name; None: a journal beside the run store."""
    trials: int = Field(12, ge=1, le=MAX_COUNT)
    """Trials altogether, the vanilla baseline among them."""
    objectives: tuple[Objective, ...] = ("accuracy",)
    """What trials are judged by, on the validation trips: accuracy (of the next road),
    calibration (its expected error, the smaller the better), throughput (trip steps a second that
    the trained student judges). Several: the Pareto front is sought and nothing is pruned."""
    sampler: Sampler = "cmaes"
    """How settings are drawn; cmaes knows one objective only."""
    epochs: int = Field(8, ge=1, le=MAX_COUNT)
    """Epochs of a trial that is not pruned."""
    min_resource: int = Field(5, ge=1, le=MAX_COUNT)
    """Epochs before Hyperband may prune."""
    reduction_factor: int = Field(3, ge=2, le=1000)
    """Of Hyperband: one trial in so many goes on from one rung to the next."""
    lambda_kl: tuple[Weight, Weight] = (0.001, 0.1)
    """Range of distill.lambda_kl, drawn on a log scale."""
    temperature: tuple[Temperature, Temperature] = (1.0, 5.0)
    """Range of distill.temperature."""
    window: tuple[Window, Window] = (2, 8)
    """Range of distill.window; only where LM-TAD teaches."""
    choices: dict[Literal["student", "train", "distill"],
                  dict[str, Annotated[tuple[Choice, ...], Field(min_length=1)]]] = Field({})
    """More to search, such as {student: {hidden_dim: [64, 128]}}: each setting's values; with
    hidden_dim the widths that must add up to it go in proportion. The baseline and its final runs
    keep what the settings say."""
    keep: Literal["best", "all"] | Annotated[int, Field(ge=1, le=MAX_COUNT)] = "all"
    """Whose weights and checkpoints stay: all trials', the best N's, or the best's (with several
    objectives the whole Pareto front's). Records and logs of every trial stay."""
    final_epochs: int = Field(25, ge=1, le=MAX_COUNT)
    """Epochs of the runs that follow with the best setting and with vanilla."""
    final_seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(
        (42, 43, 44), max_length=1000)
    """Empty: no final runs."""
    patience_s: float = Field(300.0, gt=0, le=MAX_SECONDS)
    """A worker on another machine that gave no sign for so long is taken to be gone."""

    @field_validator("lambda_kl", "temperature", "window")
    @classmethod
    def ranges_rise(cls, found: Range) -> Range:
        """Check that a range's ends stand in order."""
        if not found[0] <= found[1]:
            raise ValueError(f"expected a range such as [1, 5], found {list(found)}")
        return found

    @model_validator(mode="after")
    def lists_fit(self) -> Self:
        """Check objectives and seeds, and that the sampler knows as many objectives."""
        for name, values in (("objectives", self.objectives), ("final_seeds", self.final_seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice: {list(values)}")
        if not self.objectives:
            raise ValueError("objectives needs a value at least")
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise ValueError("sampler cmaes knows one objective only; tpe, gp and random know "
                             "several (--set tune.sampler=tpe)")
        return self
