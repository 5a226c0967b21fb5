"""How often a teacher is right, read from its stored signal."""

from collections.abc import Iterator

import numpy as np

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.teacher.fit import road_cells
from hoserkd.engine.teacher.quality import SignalQuality, judge_signal
from hoserkd.engine.teacher.signal import rows_at
from hoserkd.engine.teacher.signal_files import find_signal
from hoserkd.engine.teacher.storage import TeacherCard


def stored_qualities(
    config: EngineConfig, city: City, card: TeacherCard
) -> Iterator[tuple[str, SignalQuality]]:
    """Yield validation and test split with the teacher's worth, where its signal is stored."""
    window = config.distill.window
    for split in ("val", "test"):
        files = find_signal(city, card, split, window, config.precompute.dtype)
        if files is None:
            continue
        if files.meta["window"] == window:
            yield split, SignalQuality(**files.meta["quality"])
            continue
        # A signal for every window says how good the longest one is.
        rows = None if files.step_row is None else rows_at(files, window)
        yield split, judge_signal(files.logits, np.asarray(files.row_offset), rows, city.network,
                                  city.split(split), road_cells(card.grid, city.network))
