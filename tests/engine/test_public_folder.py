"""The folder for the public code, held against what that code reads and how."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hoserkd.engine.city.storage import SPLITS, City, load_city
from hoserkd.engine.config import CityConfig, StudentConfig, TrainConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.public_folder import PublicFolder, save_public_folder, save_roads
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, load_student, new_student
from hoserkd.errors import CheckpointError, UsageError

SMALL = StudentConfig(hidden_dim=8, road_id_dim=4, attribute_dim=1, layers=1, features="aaai2025")


RECORDED = Path(__file__).parents[1] / "data" / "hoser" / "city"


def prepared(source: Path, directory: Path) -> City:
    prepare_city(CityConfig(name="toy-town"), source, directory, force=False, observer=Silent(),
                 stop=never_stop)
    return load_city(directory)


def renumbered_source(folder: Path) -> Path:
    """Return the recorded city with ids that do not begin at 0 and have gaps."""
    folder.mkdir()
    shutil.copy(RECORDED / "road_network_partition", folder)
    for name, columns in (("roadmap.geo", ["geo_id"]),
                          ("roadmap.rel", ["origin_id", "destination_id"]),
                          *((f"{split}.csv", ["rid_list"]) for split in SPLITS)):
        with (RECORDED / name).open() as read, (folder / name).open("w") as write:
            rows = csv.DictReader(read)
            writer = csv.DictWriter(write, rows.fieldnames or ())
            writer.writeheader()
            for row in rows:
                numbers = {column: re.sub(r"\d+", lambda m: str(1000 + 7 * int(m[0])), row[column])
                           for column in columns}
                writer.writerow(row | numbers)
    return folder


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> PublicFolder:
    place = tmp_path_factory.mktemp("city")
    city = prepared(renumbered_source(place / "source"), place / "city")
    network = city.network
    model = new_student(SMALL, network).eval()
    meta = StudentMeta(SMALL, network.roads, len(network.highway_names), network.zones, city.times)
    return PublicFolder("a run", LoadedStudent(model, meta), city, TrainConfig(), max_len=32,
                        real_trips=True)


@pytest.fixture(scope="module")
def folder(content: PublicFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("public") / "out"
    save_public_folder(path, content)
    return path


def test_city_that_is_prepared_from_the_folder_is_the_same_and_takes_the_student(
    content: PublicFolder, folder: Path, tmp_path: Path
) -> None:
    again, city = prepared(folder / "data" / "toy-town", tmp_path / "city"), content.city
    for name in ("length_m", "highway", "shape_lonlat", "adjacency", "zone", "zone_transitions"):
        np.testing.assert_array_equal(getattr(again.network, name), getattr(city.network, name))
    np.testing.assert_array_equal(again.network.candidates.road, city.network.candidates.road)
    for split in ("train", "test"):
        np.testing.assert_array_equal(again.split(split).entered_at_s,
                                      city.split(split).entered_at_s)
    student = load_student(folder / "save" / "toy-town" / "seed0" / "best.pth", again)
    assert student.meta.config == SMALL


def test_settings_are_those_of_the_checkpoint(folder: Path) -> None:
    settings = yaml.safe_load((folder / "config" / "toy-town.yaml").read_text())
    state = torch.load(folder / "save" / "toy-town" / "seed0" / "best.pth", weights_only=True)
    encoder, path = settings["road_network_encoder_config"], settings["trajectory_encoder_config"]
    assert state["road_network_encoder.zone_id_emb.weight"].shape == (
        encoder["zone_id_num_embeddings"], encoder["zone_id_emb_dim"])
    mask = state["trajectory_encoder.transformer.h.0.attn.bias"]
    assert mask.shape == (1, 1, path["max_len"], path["max_len"])
    assert path["max_len"] == 32
    # The public encoder asserts this sum.
    assert sum(encoder[f"{name}_emb_dim"] for name in ("road_id", "len", "type", "lon", "lat")) == (
        encoder["intersection_emb_dim"])


def test_roads_are_numbered_as_the_public_code_counts_them(
    content: PublicFolder, folder: Path
) -> None:
    data = folder / "data" / "toy-town"
    rows = list(csv.DictReader((data / "roadmap.geo").open()))
    assert [int(row["geo_id"]) for row in rows] == list(range(content.city.network.roads))
    assert len((data / "road_network_partition").read_text().split()) == len(rows)
    assert len(json.loads(rows[0]["coordinates"])) >= 2
    back = {int(row["geo_id"]): int(row["road_id"])
            for row in csv.DictReader((data / "road_ids.csv").open())}
    assert list(back.values()) == content.city.network.road_id.tolist()
    assert "road_ids.csv" not in (folder / "README.md").read_text()  # trips are there, renumbered
    assert "--dataset toy-town" in (folder / "README.md").read_text()


def test_recorded_trips_stay_unless_they_are_asked_for(
    content: PublicFolder, tmp_path: Path
) -> None:
    save_public_folder(tmp_path / "out", replace(content, real_trips=False))
    assert not list((tmp_path / "out").rglob("*train*"))
    assert "train.csv" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UsageError, match="already exists"):
        save_public_folder(tmp_path / "out", content)


@pytest.mark.parametrize(("names", "expected"), [
    (("motorway_link", "primary"), "motorway_link"),
    (("1", "10"), "class_0"),  # the public code fails on numbers
    (("10", "9"), "class_0"),  # ... and would rank texts of numbers otherwise
    (("nan", "primary"), "class_0"),  # pandas takes it for a missing value
])
def test_classes_that_the_public_code_would_misread_get_other_names(
    names: tuple[str, str], expected: str, content: PublicFolder, tmp_path: Path
) -> None:
    network = content.city.network
    two = replace(network, highway=np.arange(network.roads) % 2, highway_names=names,
                  highway_verbatim=None)
    save_roads(tmp_path, two, 2)
    with (tmp_path / "roadmap.geo").open() as file:
        written = [row["highway"] for row in csv.DictReader(file)]
    assert written[0] == expected
    assert np.unique(written, return_inverse=True)[1].tolist() == two.highway.tolist()


def test_student_that_counts_lists_as_written_finds_its_own_classes(
    content: PublicFolder, tmp_path: Path
) -> None:
    network = content.city.network
    verbatim = np.arange(network.roads) % 11
    save_roads(tmp_path, replace(network, highway_verbatim=verbatim), 11)
    with (tmp_path / "roadmap.geo").open() as file:
        written = [row["highway"] for row in csv.DictReader(file)]
    assert written[:11] == [f"class_{rank:02d}" for rank in range(11)]
    assert np.unique(written, return_inverse=True)[1].tolist() == verbatim.tolist()


def test_student_of_the_older_time_encoding_is_refused_with_the_reason(
    content: PublicFolder, folder: Path, tmp_path: Path
) -> None:
    state = torch.load(folder / "save" / "toy-town" / "seed0" / "best.pth", weights_only=True)
    clock = "trajectory_encoder.temporal_encoder"
    del state[f"{clock}.freqs"]
    state |= {f"{clock}.time_emb.weight": torch.zeros(8, 1),
              f"{clock}.time_emb.bias": torch.zeros(8)}
    torch.save(state, tmp_path / "old.pth")
    with pytest.raises(CheckpointError, match="before its commit 0158295"):
        load_student(tmp_path / "old.pth", content.city)
