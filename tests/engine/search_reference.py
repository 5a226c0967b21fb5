"""The searches in their plain form, one at a time, and a model that is a table."""

import heapq
import math
from collections.abc import Callable

import numpy as np
import torch

from hoserkd.engine.config import DataConfig
from hoserkd.engine.search.queries import Continuation, Expansion
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.trips.batches import TripSource
from hoserkd.engine.types import Candidates, TimeStatistics, TrajectorySet

Model = Callable[[list[int], list[int], int], tuple[np.ndarray, np.ndarray]]
"""(roads, clocks, destination) -> log-probabilities and whole seconds of the candidates."""


def random_candidates(roads: int, degree: int, seed: int) -> Candidates:
    """A directed graph in which some roads are dead ends and some candidates are alone."""
    draw = np.random.default_rng(seed)
    rows = [np.sort(draw.choice(roads, draw.integers(0, degree + 1), replace=False))
            for _ in range(roads)]
    offset = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Candidates(offset, np.concatenate(rows).astype(np.int32))


def random_centroids(roads: int, seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(roads, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def table_model(candidates: Candidates, seed: int) -> Model:
    """A model whose answer depends on the whole path, its clocks and the destination."""
    def answer(roads: list[int], clocks: list[int], destination: int):
        first, last = candidates.offset[roads[-1]], candidates.offset[roads[-1] + 1]
        draw = np.random.default_rng([seed, destination, len(roads), *roads, *clocks])
        logits = draw.normal(size=last - first)
        log_prob = logits - np.logaddexp.reduce(logits, initial=-np.inf)
        return log_prob.astype(np.float32), draw.integers(0, 60, last - first).astype(np.int32)
    return answer


def plain_student(model: Hoser, tables: NetworkTables, times: TimeStatistics,
                  departure_s: int) -> Model:
    """The student's full forward pass over a whole path, for the candidates of its last road."""
    with torch.no_grad():
        encoding = model.encode_network(tables)

    def answer(roads: list[int], clocks: list[int], destination: int):
        points = np.array([*roads, destination], np.int32)
        entered = departure_s + np.array([*clocks, clocks[-1]], np.int64)
        trip = TrajectorySet(np.array([0, len(points)]), points, entered)
        with torch.no_grad():
            source = TripSource(trip, tables, DataConfig(), torch.device("cpu"))
            batch = source.batch(np.array([0]))
            output = model.forward_encoded(encoding, batch)
        first = int(batch.candidate_offset[-2])
        seconds = torch.expm1(output.travel_time[first:] * times.log1p_std + times.log1p_mean)
        return (torch.log_softmax(output.logits[first:], 0).numpy(),
                seconds.clamp(min=0).round().int().numpy())
    return answer


class TableExpander:
    """Answers expansions from a plain model, remembering (road, clock) a memory row."""

    def __init__(self, model: Model, limit: int = 10**9) -> None:
        self.model, self.limit = model, limit
        self.memory: dict[int, tuple[int, int]] = {}
        self.free: list[int] = []
        self.made = self.most = 0

    def claim(self, count: int) -> np.ndarray | None:
        if self.made - len(self.free) + count > self.limit:
            return None
        while len(self.free) < count:
            self.free.append(self.made)
            self.made += 1
        self.most = max(self.most, self.made - len(self.free) + count)
        return np.array([self.free.pop() for _ in range(count)], np.int32)

    def release(self, rows: np.ndarray) -> None:
        for row in rows.tolist():
            del self.memory[row]
            self.free.append(row)

    def reserve(self, rows: int) -> None:
        self.limit = max(self.limit, rows)

    def expand(self, expansion: Expansion) -> Continuation:
        log_prob, seconds = [np.empty(0, np.float32)], [np.empty(0, np.int32)]
        for i in range(len(expansion)):
            rows = expansion.history[expansion.history_offset[i]:expansion.history_offset[i + 1]]
            clock = int(expansion.entered_at_s[i] - expansion.departure_s[i])
            self.memory[int(rows[0])] = (int(expansion.road[i]), clock)
            path = [self.memory[int(row)] for row in rows[::-1]]
            said = self.model([p[0] for p in path], [p[1] for p in path],
                              int(expansion.destination[i]))
            log_prob.append(said[0])
            seconds.append(said[1])
        return Continuation(np.concatenate(log_prob), np.concatenate(seconds))


class Node:
    """As in the public search: ordered by log-probability where queue keys are equal."""

    def __init__(self, roads: list[int], clocks: list[int], log_prob: np.float32) -> None:
        self.roads, self.clocks, self.log_prob = roads, clocks, log_prob

    def __lt__(self, other: "Node") -> bool:
        return bool(self.log_prob < other.log_prob)


def plain_astar(model: Model, candidates: Candidates, centroid: np.ndarray, origin: int,
                destination: int, max_steps: int):
    """The public best-first search (ENGINE.md section 6), with Python's heap and lists."""
    start = Node([origin], [0], np.float32(0))
    queue, visited, best = [(np.float32(0), start)], set(), {origin: np.float32(0)}
    answer, nearest, steps = start, math.inf, 0
    while queue and steps < max_steps:
        _, node = heapq.heappop(queue)
        road = node.roads[-1]
        if road in visited:
            continue
        visited.add(road)
        if road == destination:
            return node.roads, node.clocks, float(node.log_prob)
        distance = float(((centroid[road] - centroid[destination]) ** 2).sum())
        if distance < nearest:
            nearest, answer = distance, node
        reachable = candidates.road[candidates.offset[road]:candidates.offset[road + 1]].tolist()
        if not reachable:
            continue
        steps += 1
        log_prob, seconds = model(node.roads, node.clocks, destination)
        for i, candidate in enumerate(reachable):
            total = np.float32(node.log_prob + log_prob[i])
            if candidate not in best or total > best[candidate]:
                best[candidate] = total
                heapq.heappush(queue, (-total, Node(
                    [*node.roads, candidate], [*node.clocks, node.clocks[-1] + int(seconds[i])],
                    total)))
    return answer.roads, answer.clocks, float(answer.log_prob)


def plain_beam(model: Model, candidates: Candidates, centroid: np.ndarray, origin: int,
               destination: int, max_steps: int, width: int, normalised: bool):
    """Beam search over whole paths: (score, total, roads, clocks), best first."""
    def distance(road: int) -> float:
        return float(((centroid[road] - centroid[destination]) ** 2).sum())

    live = [(np.float32(0), np.float32(0), [origin], [0])]
    arrived, nearest = [], (distance(origin), live[0])
    for step in range(1, max_steps + 1):
        pool = []
        for _, total, roads, clocks in live:
            first, last = candidates.offset[roads[-1]], candidates.offset[roads[-1] + 1]
            log_prob, seconds = model(roads, clocks, destination)
            for i, road in enumerate(candidates.road[first:last].tolist()):
                if road not in roads:
                    so_far = np.float32(total + log_prob[i])
                    score = so_far / np.float32(step) if normalised else so_far
                    clock = clocks[-1] + int(seconds[i])
                    pool.append((score, so_far, [*roads, road], [*clocks, clock]))
        best = sorted(pool, key=lambda path: -path[0])[:width]
        arrived += [path for path in best if path[2][-1] == destination]
        live = [path for path in best if path[2][-1] != destination]
        for path in live:
            if distance(path[2][-1]) < nearest[0]:
                nearest = (distance(path[2][-1]), path)
        winner = max(arrived, key=lambda path: path[0], default=None)
        if not live or (normalised and len(arrived) >= width):
            break
        if winner and not normalised and winner[0] >= live[0][0]:
            break
    _, total, roads, clocks = winner or nearest[1]
    return roads, clocks, float(total)
