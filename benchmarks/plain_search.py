"""The searches as the public code words them: one trip at a time, one model call an expansion.

Each call runs the whole path so far through the student: features of all points, attention with
its (T, T, h) tensors, and the navigator for the last road. The parameters are the fast model's own.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from benchmarks.plain_hoser import PlainBatch, PlainHoser, attend
from hoserkd.engine.geo import bearing_rad, folded_share, great_circle_m
from hoserkd.engine.student.features import clock_features
from hoserkd.engine.types import RoadNetwork, TimeStatistics


@dataclass
class Path:
    """A path and its log-probability."""

    road: list[int]
    clock_s: list[int]
    log_prob: float

    def __lt__(self, other: "Path") -> bool:
        return self.log_prob < other.log_prob


class PlainSearcher:
    """Best-first and beam search over growing prefixes."""

    def __init__(self, plain: PlainHoser, network: RoadNetwork, times: TimeStatistics) -> None:
        self.plain = plain
        self.network = network
        self.times = times
        self.calls = 0
        with torch.no_grad():
            self.road, self.zone = plain.encode()

    def candidates(self, road: int) -> np.ndarray:
        """Return the roads reachable from `road`."""
        offset = self.network.candidates.offset
        return self.network.candidates.road[offset[road]:offset[road + 1]]

    def distance_m(self, road: int, destination: int) -> float:
        """Return the metres between two centroids."""
        centroid = self.network.centroid_lonlat
        return float(great_circle_m(centroid[road], centroid[destination]))

    @torch.no_grad()
    def ask(
        self, paths: list[Path], departure_s: int, destination: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return log-probabilities and whole seconds of the candidates of paths of one length."""
        self.calls += 1
        model, network = self.plain.model, self.network
        road = np.array([p.road for p in paths])
        entered = departure_s + np.array([p.clock_s for p in paths], np.int64)
        time = torch.from_numpy(entered.reshape(-1))
        time_of_day, _ = clock_features(time, torch.full_like(time, departure_s), "geographic")
        centroid = network.centroid_lonlat[road]
        metres = great_circle_m(centroid[:, :, None], centroid[:, None])
        minutes = np.abs(entered[:, :, None] - entered[:, None]) / 60
        batch = _pairs(metres, minutes)
        encoder = model.trajectory_encoder
        phase = time_of_day.view(len(paths), -1, 1) * encoder.temporal_encoder.freqs
        scale = (1 / (2 * self.road.shape[1])) ** 0.5
        waves = torch.cat([phase.cos(), phase.sin()], dim=-1) * scale
        x = torch.cat([self._points(torch.from_numpy(road)), waves], dim=-1)
        for block in encoder.blocks:
            x = x + attend(block.attn, block.ln_1(x), batch)
            x = x + block.mlp(block.ln_2(x))
        return [self._navigate(x[i, -1], p.road[-1], destination) for i, p in enumerate(paths)]

    def _points(self, road: torch.Tensor) -> torch.Tensor:
        """Return the spatial embeddings of a path's roads, each fused with its zone's."""
        here, around = self.road[road], self.zone[self.plain.tables.zone[road]]
        fuse = self.plain.model.trajectory_encoder.road_zone_fusion_mlp
        return here + torch.sigmoid(fuse(torch.cat([here, around], dim=-1))) * around

    def _navigate(
        self, state: torch.Tensor, road: int, destination: int
    ) -> tuple[np.ndarray, np.ndarray]:
        head, network = self.plain.model.navigator, self.network
        options = self.candidates(road)
        centroid, end = network.centroid_lonlat, network.end_lonlat
        away = great_circle_m(centroid[options], centroid[destination][None])
        near = torch.from_numpy(np.log1p((away - away.min()) / 100).astype(np.float32))
        turn = folded_share(bearing_rad(end[road][None], end[options]),
                            bearing_rad(end[road], end[destination]))
        angle = torch.from_numpy(turn.astype(np.float32))
        goal = self.zone[self.plain.tables.zone[destination]]
        query = head.q_proj(torch.cat([state, goal]))
        embedded = self.road[torch.from_numpy(options.astype(np.int64))]
        key = head.k_proj(torch.cat([embedded, head.metric_distance_proj(near[:, None]),
                                     head.metric_angle_proj(angle[:, None])], dim=-1))
        logits = head.v_proj(torch.tanh(query + key)).squeeze(-1)
        halves = [head.time_estimator_linear_1(state.expand(len(options), -1)),
                  head.time_estimator_linear_2(embedded)]
        hidden = functional.gelu(torch.cat(halves, dim=-1))
        time = head.time_estimator_linear_3(hidden)[:, head.point]
        seconds = torch.expm1(time * self.times.log1p_std + self.times.log1p_mean).clamp(min=0)
        return functional.log_softmax(logits, dim=0).numpy(), seconds.round().int().numpy()

    def best_first(
        self, origin: int, destination: int, departure_s: int, max_steps: int = 5000
    ) -> Path:
        """Return the public search's path."""
        start = Path([origin], [0], 0.0)
        queue, visited, best = [(0.0, start)], set(), {origin: 0.0}
        answer, nearest, steps = start, np.inf, 0
        while queue and steps < max_steps:
            _, path = heapq.heappop(queue)
            road = path.road[-1]
            if road in visited:
                continue
            visited.add(road)
            if road == destination:
                return path
            distance = self.distance_m(road, destination)
            if distance < nearest:
                nearest, answer = distance, path
            if not len(self.candidates(road)):
                continue
            steps += 1
            [(log_prob, seconds)] = self.ask([path], departure_s, destination)
            for i, candidate in enumerate(self.candidates(road).tolist()):
                total = float(np.float32(path.log_prob + log_prob[i]))
                if total > best.get(candidate, -np.inf):
                    best[candidate] = total
                    longer = Path([*path.road, candidate],
                                  [*path.clock_s, path.clock_s[-1] + int(seconds[i])], total)
                    heapq.heappush(queue, (-total, longer))
        return answer

    def beam(
        self, origin: int, destination: int, departure_s: int, width: int, max_steps: int = 5000
    ) -> Path:
        """Return the best arrival of a beam search, all beams of a step in one call."""
        live = [Path([origin], [0], 0.0)]
        arrived: Path | None = None
        nearest = (self.distance_m(origin, destination), live[0])
        for _ in range(max_steps):
            pool = []
            going = [p for p in live if len(self.candidates(p.road[-1]))]
            for path, (log_prob, seconds) in zip(
                    going, self.ask(going, departure_s, destination) if going else [], strict=True):
                for i, road in enumerate(self.candidates(path.road[-1]).tolist()):
                    if road not in path.road:
                        total = float(np.float32(path.log_prob + log_prob[i]))
                        clock_s = [*path.clock_s, path.clock_s[-1] + int(seconds[i])]
                        pool.append(Path([*path.road, road], clock_s, total))
            live = []
            for path in sorted(pool, key=lambda p: -p.log_prob)[:width]:
                if path.road[-1] != destination:
                    live.append(path)
                elif arrived is None or path.log_prob > arrived.log_prob:
                    arrived = path
            for path in live:
                nearest = min(nearest, (self.distance_m(path.road[-1], destination), path))
            if not live or (arrived and arrived.log_prob >= live[0].log_prob):
                break
        return arrived or nearest[1]


def _pairs(metres: np.ndarray, minutes: np.ndarray) -> PlainBatch:
    """Return a batch of which attention reads only how the points lie to each other."""
    nothing = torch.empty(0)
    count, length = metres.shape[:2]
    return PlainBatch(
        road=nothing, time_of_day=nothing,
        distance=torch.from_numpy((metres.clip(max=1000) / 1000).astype(np.float32)),
        interval=torch.from_numpy((minutes.clip(max=5) / 5).astype(np.float32)),
        length=torch.full((count,), length), destination=nothing, candidate=nothing,
        candidate_distance=nothing, candidate_angle=nothing, candidate_count=nothing,
        label=nothing, travel_time_s=nothing)
