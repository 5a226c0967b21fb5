from collections import Counter
from itertools import pairwise

import numpy as np
from two_way_town import REPEATS, REQUESTS, two_way_town


def test_the_town_has_what_its_users_rely_on(two_way_city):
    town, network = two_way_town(), two_way_city.network
    offset, road = network.candidates.offset, network.candidates.road
    assert [road[a:b].tolist() for a, b in pairwise(offset)] == town.follow
    paired = [(a, b) for a, b in enumerate(town.opposite) if b >= 0]
    assert len(paired) > 0.9 * network.roads
    for a, b in paired:
        assert np.array_equal(network.centroid_lonlat[a], network.centroid_lonlat[b])
    entered = set(road.tolist())
    assert not town.follow[town.closed_in]
    assert town.closed_in in entered
    assert town.follow[town.closed_out]
    assert town.closed_out not in entered
    assert town.follow[town.loop_in] == [town.opposite[town.loop_in]]
    trips = two_way_city.split("test")
    first, last = trips.offset[:-1], trips.offset[1:] - 1
    asked = Counter(zip(trips.road[first].tolist(), trips.road[last].tolist(),
                        trips.entered_at_s[first].tolist(), strict=True))
    assert sorted(asked.values()) == [REPEATS] * REQUESTS
