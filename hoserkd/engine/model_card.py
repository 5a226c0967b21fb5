"""A model card made of facts: nothing in it that was not measured or set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hoserkd.engine.config import EngineConfig
from hoserkd.engine.identity import Identity, MadeFrom
from hoserkd.engine.weights import count_weights
from hoserkd.errors import BundleError
from hoserkd.placeless import placeless_path
from hoserkd.text import markdown_text

KINDS = {"lmtad": "distilled from LM-TAD", "hoser": "distilled from another HOSER",
         "self": "distilled from its own last layer"}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card tells."""

    name: str
    run_id: str
    profile: str
    config: EngineConfig
    parameters: int
    started: str
    duration: str
    device: str
    versions: Mapping[str, str]
    git_revision: str
    city: Mapping[str, Any]
    """Manifest of the prepared city; empty where it is not known."""
    made_from: MadeFrom = field(default_factory=MadeFrom)
    """Its teacher and the student that it started from."""
    test: Mapping[str, float] = field(default_factory=dict)
    """Figures of the held-out split."""
    terms: str = ""
    """Of the data, in words."""
    recorded_trips: bool = False
    """Whether reports and exports in the bundle hold recorded trips."""
    evaluations: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """(label, figure by name) of the evaluations of generated trips."""


def count_parameters(path: Path) -> int:
    """Return the number of weights in a .safetensors file.

    Raises:
        BundleError: the file is damaged.
    """
    try:
        return count_weights(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a model: {error}") from error


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown."""
    sections = [_head(facts), _how(facts), _data(facts), _figures(facts), _use(facts),
                _environment(facts)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(facts: CardFacts) -> str:
    distill = facts.config.distill
    kind = KINDS[distill.source] if distill.enabled else "vanilla"
    return (f"# {markdown_text(facts.name)}\n\n"
            f"A HOSER trajectory model ({kind}) with {facts.parameters:,} parameters. Given a "
            "road, a destination and a departure time it tells the probability of each next road "
            "and the time it takes; searched along, that generates trips on the roads of one city.")


def _how(facts: CardFacts) -> str:
    train, distill = facts.config.train, facts.config.distill
    rows = [("run", facts.run_id), ("profile", facts.profile), ("started", facts.started),
            ("took", facts.duration), ("device", facts.device), ("seed", facts.config.seed),
            ("epochs", train.epochs if train.max_steps is None else
             f"{train.epochs}, at most {train.max_steps} steps"),
            ("batch", f"{train.batch_size} trips x {train.accumulation}"),
            ("learning rate", train.learning_rate), ("weight decay", train.weight_decay),
            ("weights kept of the best epoch by", f"validation {train.best}"),
            ("features", facts.config.student.features)]
    if (quantiles := facts.config.student.time_quantiles) is not None:
        rows.append(("quantiles of the time", ", ".join(f"{q:g}" for q in quantiles)))
    if distill.enabled:
        rows += [("lambda_kl", distill.lambda_kl), ("temperature", distill.temperature),
                 ("window", distill.window), ("collisions", distill.collisions)]
    if distill.enabled and distill.source != "self":
        named = placeless_path(facts.config.teacher.name)
        rows.append(("teacher", _identified(facts.made_from.teacher, named)))
    if facts.made_from.student is not None:
        rows.append(("started from", _identified(facts.made_from.student, "")))
    return "## How it was trained\n\n" + _table(("setting", "value"), rows)


def _identified(identity: Identity | None, name: str) -> str:
    """Return name and hash of an artefact, or `name` alone where its record says no more."""
    return name if identity is None else f"{identity.name}, hash {identity.sha256[:16]}"


def _data(facts: CardFacts) -> str:
    city = facts.city
    if not city:
        return ""
    rows: list[tuple[str, object]] = [("city", city.get("name", "?")),
                                      ("content hash", str(city.get("sha256", ""))[:16])]
    for name, label in (("network/road_id", "roads"), ("network/candidate_road", "relations")):
        if name in city.get("arrays", {}):
            rows.append((label, city["arrays"][name]["shape"][0]))
    for split in ("train", "val", "test"):
        said = city.get("arrays", {}).get(f"trips/{split}/offset")
        if said:
            rows.append((f"{split} trips", said["shape"][0] - 1))
    if facts.terms:
        rows.append(("terms", facts.terms))
    held = ("Recorded trips are part of the bundle's reports and exports."
            if facts.recorded_trips else "No recorded trip is part of the bundle.")
    return ("## Data\n\n" + _table(("", ""), rows) + f"\n\n{held} Generated trips answer requests "
            "drawn from recorded ones: origin, destination and departure. See LICENCES.md.")


def _figures(facts: CardFacts) -> str:
    parts = ["## Figures"]
    if facts.test:
        parts.append("On the test split, recorded at the end of the training:\n\n"
                     + _table(("metric", "value"), sorted(facts.test.items())))
    for label, figures in facts.evaluations:
        rows = [(name, value) for name, value in figures.items()
                if isinstance(value, int | float) and not isinstance(value, bool)]
        if rows:
            parts.append(f"Generated trips, evaluation {markdown_text(label)}:\n\n"
                         + _table(("metric", "value"), rows))
    if len(parts) == 1:
        parts.append("None were recorded.")
    return "\n\n".join(parts)


def _use(facts: CardFacts) -> str:
    return ("## Use and limits\n\n"
            "    hoserkd generate --model THIS_BUNDLE --od QUERIES.csv --output trips.csv\n\n"
            "QUERIES.csv has the columns origin, destination and departure, which the files in "
            "`generated/` have too: asked for their queries, the model gives their trips again. "
            "With the prepared city, `hoserkd evaluate --model THIS_BUNDLE --city DIR` judges it "
            "anew.\n\n"
            "It knows the roads of its own city only, and the habits of the recorded drivers in "
            "the recorded months. It is no route planner: probabilities follow what was driven, "
            "not what is fast or allowed. Generated trips may resemble recorded ones."
            + _public_use(facts))


def _public_use(facts: CardFacts) -> str:
    """Return what `runs export --hoser` loses; nothing for the public code's own features."""
    if facts.config.student.features == "aaai2025":
        return ""
    return ("\n\nIts features are `geographic`. The public HOSER code computes skewed angles, so "
            "the student answers less well there: one of this kind took other roads in 28 of 100 "
            "searches and was right on 84.2 % of the next roads, not 84.4 %. `runs export --hoser` "
            "measures it for this one.")


def _environment(facts: CardFacts) -> str:
    rows = [*facts.versions.items()]
    if facts.git_revision:
        rows.append(("commit", facts.git_revision))
    return "## Made with\n\n" + _table(("package", "version"), rows)


def _table(columns: tuple[str, str], rows: Sequence[tuple[object, object]]) -> str:
    lines = [f"| {columns[0]} | {columns[1]} |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return markdown_text(f"{value:.6g}" if isinstance(value, float) else str(value))


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product
