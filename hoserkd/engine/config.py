"""The engine's settings: one frozen section a concern, each default in one place.

Every field carries its meaning; `hoserkd profiles show` prints it. Where the values of the
`beijing` profile come from, the profile says.
"""

import difflib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from hoserkd.engine.config_base import (
    COLDEST,
    HOTTEST,
    MAX_BATCH,
    MAX_COUNT,
    MAX_METRES,
    MAX_PARAMETERS,
    MAX_RATE,
    MAX_SECONDS,
    MAX_SEED,
    MAX_STEPS,
    MAX_TRIPS,
    MAX_WEIGHT,
    field_findings,
    named,
)
from hoserkd.engine.config_base import Section as Section
from hoserkd.engine.config_tune import TuneConfig as TuneConfig
from hoserkd.engine.names import checked_name, checked_reference

Window = Annotated[int, Field(ge=1, le=8)] | Literal["full"]
Switch = bool | Literal["auto"]
Share = Annotated[float, Field(gt=0, lt=1)]
Hours = tuple[Annotated[float, Field(ge=0, le=24)], Annotated[float, Field(ge=0, le=24)]]
Longitude = Annotated[float, Field(ge=-360, le=360)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
MAX_ZONES = 4096
"""More would make the dense matrix of transitions larger than the city."""
MAX_LAYERS = 128
MAX_SCENARIOS = 100
MEDIAN = 0.5
"""The quantile that stands for a time where one number is wanted."""


class CityConfig(Section):
    """Where a city comes from and how it is prepared."""

    name: Annotated[str, named()] = "city"
    """Name of the prepared city under the data folder."""
    timezone: str | None = None
    """IANA name of the zone whose clocks the trips show, such as Europe/Lisbon: exports then carry
    the offset from UTC. None: unknown, exports hold wall clocks without a zone."""
    source: Path | None = None
    """Folder with roadmap.geo, roadmap.rel, train.csv, val.csv, test.csv; None: `--source` says."""
    synthetic: bool = False
    """Make the embedded demo city instead of reading a folder."""
    zones: int = Field(300, ge=1, le=MAX_ZONES)
    """Parts the road graph is cut into; fewer where there are fewer roads."""
    partitioner: Literal["metis", "kahip"] = "metis"
    """Used where the folder holds no road_network_partition."""
    max_rejected_share: float = Field(0.05, ge=0, le=1)
    """Preparing fails if more than this share of the trips is bad."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the partition and of the demo city."""
    demo_roads: int = Field(1200, ge=60, le=50_000)
    """About how many roads the demo city has."""
    demo_trips: int = Field(4000, ge=50, le=1_000_000)
    """How many trips the demo city has, over all splits."""

    @field_validator("timezone")
    @classmethod
    def timezone_is_known(cls, name: str | None) -> str | None:
        """Check that there is a time zone of that name."""
        if name is not None:
            from hoserkd.engine.clock import find_zone

            find_zone(name)
        return name


class DataConfig(Section):
    """How trips reach the model."""

    residency: Literal["auto", "device", "ram", "stream"] = "auto"
    """Where the packed splits live; auto: on the device if they fit, else RAM, else on disk."""
    candidate_top_k: int = Field(64, ge=1, le=MAX_COUNT)
    """Of more candidates than this only the nearest to the destination are kept."""
    train_share: float = Field(1.0, gt=0, le=1)
    """Share of the training trips that a student learns from; a smaller one lies within a larger.
    Zones, their transitions and the time statistics remain the whole city's."""
    share_seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the draw behind `train_share`, apart from `seed`."""


def _check_size(parameters: int, settings: str) -> None:
    """Check how many parameters the blocks of a transformer have; 12 d² each (ENGINE.md 2, 4)."""
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"{settings} make a model of {parameters:,} parameters, at most "
                         f"{MAX_PARAMETERS:,} are allowed")


class StudentConfig(Section):
    """HOSER's dimensions (ENGINE.md section 2)."""

    hidden_dim: int = Field(128, ge=4, le=8192)
    """Width d of roads and zones; the trajectory encoder is twice as wide."""
    road_id_dim: int = Field(64, ge=1, le=8192)
    """Width of a road's own embedding; with the four attribute widths it fills `hidden_dim`."""
    attribute_dim: int = Field(16, ge=1, le=2048)
    """Width of each of the embeddings of length, class, longitude and latitude."""
    heads: int = Field(2, ge=1, le=1024)
    """Attention heads of the trajectory encoder."""
    layers: int = Field(2, ge=1, le=MAX_LAYERS)
    """Blocks of the trajectory encoder."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in the trajectory encoder; the public model has none."""
    features: Literal["geographic", "aaai2025"] = "geographic"
    """Convention of angles and intervals; aaai2025 repeats the public code's, for its weights."""
    time_head: Literal["point", "quantile"] = "point"
    """point: one time a candidate; quantile: `quantiles` of it, trained by the pinball loss."""
    quantiles: tuple[Share, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), max_length=99)
    """With time_head `quantile`: which ones, rising, 0.5 among them; it is the point estimate."""

    @property
    def time_quantiles(self) -> tuple[float, ...] | None:
        """Return which quantiles the time head gives; None: it gives a point."""
        return self.quantiles if self.time_head == "quantile" else None

    @field_validator("quantiles")
    @classmethod
    def quantiles_rise(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        """Check that the quantiles are rising shares with the median among them."""
        if any(a >= b for a, b in pairwise(quantiles)):
            raise ValueError("each must be larger than the one before it")
        if MEDIAN not in quantiles:
            raise ValueError(f"the median, {MEDIAN}, must be among them")
        return quantiles

    @model_validator(mode="after")
    def widths_add_up(self) -> Self:
        """Check that the attribute widths fill the hidden width and heads divide it."""
        if self.road_id_dim + 4 * self.attribute_dim != self.hidden_dim:
            raise ValueError(
                f"road_id_dim + 4 * attribute_dim must be hidden_dim, "
                f"but {self.road_id_dim} + 4 * {self.attribute_dim} is not {self.hidden_dim}"
            )
        if (2 * self.hidden_dim) % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide 2 * hidden_dim")
        _check_size(12 * self.layers * (2 * self.hidden_dim) ** 2, "layers and hidden_dim")
        return self


class TeacherConfig(Section):
    """LM-TAD: its dimensions, its grid and its own training (ENGINE.md section 4)."""

    name: Annotated[str, AfterValidator(checked_reference)] = "teacher"
    """Which teacher under the teachers folder, or a path to an export. Trained is one under its
    name, or where `train-teacher --name DIR` says."""
    n_layer: int = Field(8, ge=1, le=MAX_LAYERS)
    n_head: int = Field(12, ge=1, le=1024)
    n_embd: int = Field(768, ge=2, le=16_384)
    dropout: float = Field(0.2, ge=0, lt=1)
    block_size: int = Field(512, ge=8, le=65_536)
    """Longest token sequence, SOT and EOT included; longer trips are cut."""
    cell_size_deg: float = Field(0.001, ge=1e-6, le=90)
    """Height and width of a grid cell of a teacher trained here, in degrees."""
    epochs: int = Field(10, ge=1, le=MAX_COUNT)
    batch_tokens: int = Field(16384, ge=16, le=1 << 24)
    """Tokens of a training batch, padding included."""
    learning_rate: float = Field(3e-4, gt=0, le=MAX_RATE)
    weight_decay: float = Field(0.1, ge=0, le=MAX_RATE)
    warmup_share: float = Field(0.02, ge=0, lt=1)
    clip: float = Field(1.0, gt=0, le=MAX_WEIGHT)
    best: Literal["loss", "accuracy"] = "loss"
    """Which figure of the held-out tokens chooses the best epoch: the mean loss, or the share of
    tokens whose likeliest prediction is right. The other one breaks ties, then the earlier."""
    anomaly_trips: int = Field(5000, ge=0, le=MAX_TRIPS)
    """Test trips, at most, of which outliers are made at the end to judge the teacher at LM-TAD's
    own task; 0: not judged."""

    @model_validator(mode="after")
    def heads_divide_width(self) -> Self:
        """Check that the heads share the width equally."""
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head ({self.n_head}) must divide n_embd ({self.n_embd})")
        _check_size(12 * self.n_layer * self.n_embd**2, "n_layer and n_embd")
        return self


class DistillConfig(Section):
    """What the teacher adds to the loss (ENGINE.md sections 3 and 7)."""

    enabled: bool = True
    """False: vanilla HOSER."""
    source: Literal["lmtad", "hoser", "self"] = "lmtad"
    """Who teaches: an LM-TAD export; another (bigger) HOSER, then `teacher.name` is a run or a
    student file; or the student's own last layer, which teaches heads on earlier ones."""
    mode: Literal["precomputed", "online"] = "precomputed"
    """precomputed: read the stored signal; online: ask the teacher at every batch."""
    lambda_kl: float = Field(0.01, ge=0, le=MAX_WEIGHT)
    """Weight of the KL term; 0 gives exactly the vanilla run."""
    temperature: float = Field(2.0, ge=COLDEST, le=HOTTEST)
    """Temperature of both distributions; with a cosine schedule, the one at the start."""
    temperature_end: float | None = Field(None, ge=COLDEST, le=HOTTEST)
    """Temperature at the end of training, reached along a cosine; None: constant."""
    tau_squared: bool = False
    """Multiply the KL term by the squared temperature."""
    ramp_epochs: float = Field(0.0, ge=0, le=MAX_COUNT)
    """Epochs over which lambda_kl rises linearly from 0."""
    collisions: Literal["duplicate", "share"] = "duplicate"
    """Where candidates fall in one cell: each gets the cell's mass, or they share it."""
    steps: Literal["all", "last"] | Annotated[int, Field(ge=1, le=MAX_COUNT)] = "all"
    """Which steps of a trip are distilled; a number: that many, drawn at random."""
    window: Window = 4
    """Tokens of history that the teacher sees after SOT, 1 to 8, or `full`."""
    aux_layers: tuple[Annotated[int, Field(ge=0, lt=MAX_LAYERS)], ...] = Field(
        (0,), max_length=MAX_LAYERS)
    """With source `self`: blocks of the trajectory encoder, 0 for the first, that get a head."""
    weight_gt: float = Field(1.0, ge=0, le=MAX_WEIGHT)
    """With source `self`: weight of the data loss, averaged over all heads."""
    weight_soft: float = Field(0.2, ge=0, le=MAX_WEIGHT)
    """With source `self`: weight of the distillation loss, averaged over the auxiliary heads."""


class PrecomputeConfig(Section):
    """How the teacher's signal is computed and stored."""

    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val")
    batch_size: int = Field(4096, ge=1, le=MAX_BATCH)
    """Contexts that go through the teacher at once."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored logits."""


class TrainConfig(Section):
    """The student's training."""

    epochs: int = Field(25, ge=1, le=MAX_COUNT)
    max_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Stop after so many optimiser steps; None: after `epochs`."""
    batch_size: int = Field(64, ge=1, le=MAX_BATCH)
    """Trips of a forward pass."""
    accumulation: int = Field(1, ge=1, le=MAX_COUNT)
    """Forward passes of an optimiser step; the last one of an epoch may have fewer."""
    learning_rate: float = Field(1e-3, gt=0, le=MAX_RATE)
    weight_decay: float = Field(0.1, ge=0, le=MAX_RATE)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of all optimiser steps over which the learning rate rises."""
    schedule: Literal["cosine", "hold"] = "cosine"
    """After the rise, a cosine down to 0 (the published one), or the full rate until it falls."""
    decay_share: float = Field(0.2, gt=0, le=1)
    """Share of all optimiser steps over which `hold` falls linearly to 0 at the end."""
    clip: float = Field(1.0, gt=0, le=MAX_WEIGHT)
    """Largest norm of the gradient."""
    amp: Literal["auto", "off", "fp16", "bf16"] = "auto"
    """Mixed precision; auto: bf16 on CUDA devices that have it, else fp16; off on a CPU."""
    compile: Switch = "auto"
    """Compile the model with torch.compile; auto: no, it has not paid where it was measured."""
    tf32: Switch = "auto"
    """Let CUDA multiply float32 matrices with ten bits of fraction; auto: yes. A CPU ignores it."""
    recompute: Switch = "auto"
    """Compute the trajectory encoder again in the backward pass instead of keeping what it needs:
    less memory, more time, the same gradients; auto: where the largest batch would not fit."""
    all_roads: Switch = "auto"
    """Let the graph network embed all roads at every step, not those that the batch can see: more
    arithmetic, and a GPU's host waits for nothing; auto: where a batch sees nearly all."""
    cuda_graphs: Switch = "auto"
    """Replay the road network's pass, forward and back, as one recorded CUDA graph over all roads;
    auto: no. A CPU ignores it."""
    checkpoint_every: int = Field(500, ge=1, le=MAX_STEPS)
    """Optimiser steps between two resumable checkpoints; each validation ends with one too."""
    validate_every: int = Field(1, ge=1, le=MAX_COUNT)
    """Epochs between two validations, from which the best weights are chosen; the last step is
    always judged."""
    best: Literal["accuracy", "loss", "loss_road", "loss_time"] = "accuracy"
    """Which validation figure chooses the best weights. Equal accuracies: the lower loss; equal
    losses: the higher accuracy; else the earlier epoch. loss: loss_road + loss_time (or, with a
    quantile head, loss_pinball), without the teacher's term."""
    validation_batch_size: int = Field(256, ge=1, le=MAX_BATCH)
    deterministic: bool = True
    """Ask torch for deterministic algorithms."""


class ProfilingConfig(Section):
    """How often a training looks at its own clock."""

    interval: int = Field(50, ge=0, le=MAX_STEPS)
    """Time the parts of every n-th step; 0: never."""


class GenerateConfig(Section):
    """The search (ENGINE.md section 6)."""

    search: Literal["astar", "beam", "sample", "greedy"] = "astar"
    num: int = Field(5000, ge=1, le=MAX_TRIPS)
    """Requests drawn from the trips of a split, at most: each trip is taken once."""
    max_steps: int = Field(5000, ge=1, le=MAX_COUNT)
    """Expansions (astar) or roads (others) before a search gives up."""
    batch_size: int = Field(256, ge=1, le=MAX_BATCH)
    """Searches that advance together."""
    workers: int = Field(0, ge=0, le=1024)
    """Threads among which the searches are shared on a CPU; 0: as many as torch may use."""
    memory_mb: int = Field(2048, ge=1, le=1 << 24)
    """Bound of the keys and values of expanded roads, in MiB; a single search may go beyond it."""
    time_limit_s: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """Seconds after which searches end where they stand; None: never. Results then depend on the
    machine's speed."""
    search_time_limit_s: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """The same for each search by itself, counted from when it starts."""
    max_snap_m: float = Field(1000.0, gt=0, le=1e8)
    """Of a request with points, how many metres away the roads taken for them may be. In a city a
    road is nearer than 1,000 m even to the middle of a park or an airport; a point farther off is
    outside the map, or its longitude and latitude are exchanged."""
    trips_per_od: int = Field(1, ge=1, le=10_000)
    """Trips for every request (OD pair and departure); more than 1 only makes sense for
    `sample`."""
    attempts: int = Field(1, ge=1, le=10_000)
    """Of `sample`: draw anew, at most so often in all, until the destination is reached."""
    length_normalised: bool = False
    """Of `beam`: rank paths by mean, not total, log-probability a step."""
    guide: bool = False
    """Of `astar`: also count what the rest of the way will at least cost, judged by the training
    trips' turns: fewer expansions, but other paths may be found."""
    guide_weight: float = Field(0.5, gt=0, le=MAX_WEIGHT)
    """Share of the turns' surprise that the guide takes for the cost of the rest of the way."""
    beam_width: int = Field(4, ge=1, le=1024)
    temperature: float = Field(1.0, ge=COLDEST, le=HOTTEST)
    """Of `sample`."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Of `sample`: draw among the likeliest candidates that hold this mass."""
    forbid_loops: bool = True
    """Of `sample`: never enter a road twice."""


class Scenario(Section):
    """Hours and areas by which an evaluation is broken down."""

    peak_hours: tuple[Hours, ...] = ((7.0, 9.0), (17.0, 19.0))
    """Half-open intervals of hours of the wall clock, on weekdays."""
    centre_share: float = Field(0.33, gt=0, lt=1)
    """The centre is the disc round the median trip end that holds this share of trip ends."""
    long_km: float | None = Field(None, gt=0, le=20_100)
    """Trips whose ends are farther apart, as the crow flies, are long; None: the real median."""
    by: tuple[Literal["day", "hour", "area", "length", "novelty"], ...] = (
        "day", "hour", "area", "length", "novelty")
    """Which breakdowns are made."""
    hours: dict[str, tuple[Hours, ...]] = Field({}, max_length=MAX_SCENARIOS)
    """Further scenarios by name: half-open intervals of hours, on any day."""
    days: dict[str, tuple[Annotated[int, Field(ge=0, le=6)], ...]] = Field(
        {}, max_length=MAX_SCENARIOS)
    """Further scenarios by name: days of the week, 0 is Monday."""
    areas: dict[str, tuple[Longitude, Latitude, Annotated[float, Field(gt=0, le=20_100)]]] = Field(
        {}, max_length=MAX_SCENARIOS)
    """Further scenarios by name: trips with an end in this disc, given as longitude, latitude and
    radius in km."""


class EvaluateConfig(Section):
    """The judgement (ENGINE.md section 8)."""

    bins: int = Field(100, ge=2, le=10_000)
    """Bounds of every distribution's bins, from 0 to the largest real value: `bins` - 1 equal bins
    and one open above, as the public evaluation has them; `..._jsd_101` has one equal bin more."""
    cell_m: float = Field(200.0, ge=0.1, le=MAX_METRES)
    """Side of the cells by which real and generated trips are paired."""
    cell_origin: tuple[Longitude, Latitude] | None = None
    """Longitude and latitude from which the cells are counted; None: the roads' south-west."""
    edr_epsilon_m: float = Field(100.0, gt=0, le=MAX_METRES)
    bootstrap: int = Field(1000, ge=0, le=100_000)
    """Resamples behind every interval; 0: no intervals."""
    confidence: float = Field(0.95, gt=0, lt=1)
    model_trips: int = Field(2000, ge=0, le=MAX_TRIPS)
    """Real trips on which the model itself is judged step by step; 0: none."""
    sampled_trips: int = Field(40, ge=0, le=10_000)
    """Pairs of real and generated trips on the report's map."""
    scenario: Scenario = Scenario()


class StudyConfig(Section):
    """The study of what distillation is worth: vanilla against arms, seed by seed."""

    name: Annotated[str, named(40)] | None = None
    """What the study and its runs are called; None: the city's name and `-study`."""
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0, 0.1, 0.01), max_length=100)
    """Shares of the training trips, each a part of the study of its own."""
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(
        (42, 43, 44), max_length=1000)
    """Every arm is trained with each; the arms are compared seed by seed."""
    steps: int = Field(2000, ge=1, le=MAX_STEPS)
    """Optimiser steps of a training, at most; the same for every arm."""
    max_epochs: int = Field(100, ge=1, le=MAX_COUNT)
    """Passes over a share, at most, which bounds the steps where the share is small."""
    arms: dict[str, dict[str, Any]] = Field({"distilled": {}}, max_length=100)
    """By name: what each arm sets in the section `distill`, or `teacher` for another one than
    `teacher.name`. Vanilla is always there and needs no arm."""

    @model_validator(mode="after")
    def lists_hold_each_once(self) -> Self:
        """Check that there are shares and seeds, none of them twice."""
        for name, values in (("shares", self.shares), ("seeds", self.seeds)):
            if not values:
                raise ValueError(f"{name} needs a value at least")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice: {list(values)}")
        return self

    @field_validator("arms")
    @classmethod
    def arms_are_distillations(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Check the arms' names and settings, all findings at once."""
        findings = [] if arms else ["needs an arm, such as {distilled: {}}"]
        for name, settings in arms.items():
            findings += [f"arm {name}: {finding}" for finding in _arm_findings(name, settings)]
        if findings:
            raise ValueError("; ".join(findings))
        return arms


def _raised(check: Callable[..., object], *arguments: object) -> list[str]:
    """Return what a check says against its arguments."""
    try:
        check(*arguments)
    except ValueError as error:
        return [str(error)]
    return []


def _arm_findings(name: str, settings: dict[str, Any]) -> list[str]:
    findings = _raised(checked_name, name, 30)
    if name == "vanilla":
        findings.append("vanilla is always there")
    known = [*(key for key in DistillConfig.model_fields if key != "enabled"), "teacher"]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            findings.append(f"distill has no setting {key} for an arm"
                            + (f"; did you mean {near[0]}?" if near else ""))
    if not isinstance(teacher := settings.get("teacher", "teacher"), str):
        findings.append("teacher must be a name or a path")
    else:
        findings += [f"teacher {finding}" for finding in _raised(checked_reference, teacher)]
    try:
        DistillConfig.model_validate({k: v for k, v in settings.items() if k in known[:-1]})
    except ValidationError as error:
        findings += field_findings(error, "distill")
    return findings


class TrackingConfig(Section):
    """Other trackers that show a run while it lasts; the run store always records it."""

    mirror: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Trackers to mirror to; none by default. Each needs the extra of its name."""
    project: str = "hoserkd"
    """Project of W&B."""
    online: bool = False
    """Let W&B use the network; else it writes files for `wandb sync`."""


class EngineConfig(Section):
    """All that the engine reads; a run stores it resolved."""

    city: CityConfig = CityConfig()
    data: DataConfig = DataConfig()
    student: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    distill: DistillConfig = DistillConfig()
    precompute: PrecomputeConfig = PrecomputeConfig()
    train: TrainConfig = TrainConfig()
    profiling: ProfilingConfig = ProfilingConfig()
    generate: GenerateConfig = GenerateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tune: TuneConfig = TuneConfig()
    study: StudyConfig = StudyConfig()
    tracking: TrackingConfig = TrackingConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA where there is one."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of all that is drawn."""
