import numpy as np
import pytest
import torch
from search_reference import plain_astar, plain_student

from hoserkd.engine.city.storage import load_city
from hoserkd.engine.config import CityConfig, GenerateConfig, StudentConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.generate import draw_queries, generate_trips
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student
from hoserkd.engine.student.tables import build_network_tables


def heading_student(city):
    """A student that prefers the way to its destination, so that searches end soon."""
    torch.manual_seed(0)
    config = StudentConfig(hidden_dim=32, road_id_dim=16, attribute_dim=4)
    model, width = new_student(config, city.network).eval(), config.hidden_dim
    head = model.navigator
    with torch.no_grad():
        head.k_proj.weight[:, width:2 * width] = torch.eye(width)
        head.k_proj.weight[:, 2 * width:] = torch.eye(width)
        head.v_proj.weight.copy_(0.1 * torch.randn(1, width) - 6 / width)
        for metric in (head.metric_distance_proj, head.metric_angle_proj):
            metric.weight.fill_(0.6)
            metric.bias.zero_()
    meta = StudentMeta(config, city.network.roads, len(city.network.highway_names),
                       city.network.zones, city.times)
    return LoadedStudent(model, meta)


@pytest.mark.real_data
def test_searches_for_real_trips_equal_the_plain_ones(real_data, tmp_path):
    """Road for road and second for second; no two nodes tie to float precision in this sample."""
    prepare_city(CityConfig(name="mini"), real_data / "san_francisco_mini", tmp_path / "city",
                 force=False, observer=Silent(), stop=never_stop)
    city = load_city(tmp_path / "city")
    student = heading_student(city)
    queries = draw_queries(city, "test-trips", 20, seed=0)
    found = [(chunk.road[a:b].tolist(), chunk.entered_at_s[a:b].tolist())
             for chunk in generate_trips(
                 student, city, queries, GenerateConfig(), device=torch.device("cpu"), seed=0,
                 observer=Silent(), stop=never_stop)
             for a, b in zip(chunk.offset[:-1], chunk.offset[1:], strict=True)]
    tables = build_network_tables(city.network, "geographic", torch.device("cpu"))
    lon, lat = np.radians(city.network.centroid_lonlat).T
    centroid = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    for i, (roads, entered) in enumerate(found):
        departure = int(queries.departure_s[i])
        expected = plain_astar(
            plain_student(student.model, tables, city.times, departure), city.network.candidates,
            centroid, int(queries.origin[i]), int(queries.destination[i]), 5000)
        assert roads == expected[0]
        assert entered == [departure + clock for clock in expected[1]]
