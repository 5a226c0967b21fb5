"""The compiled loops over the bytes of a trip file and over its points.

Plain functions of arrays without records: numba compiles them once and keeps the result beside
this file. Codes of what is wrong with a line are those of `validation.Cause`.
"""

import numpy as np

from hoserkd.engine.compiled import compiled

OK = 0
UNPARSABLE = 1
LENGTHS = 2
SHORT = 3
UNKNOWN_ROAD = 4
NOT_CONNECTED = 5
TIME_BACK = 6
LONG = 7
BLANK = 255

# What `detail_a` of an UNPARSABLE line says.
BAD_CELLS = 0
BAD_ROADS = 1
BAD_TIMES = 2

NEWLINE, RETURN, QUOTE, COMMA, SPACE, TAB = 10, 13, 34, 44, 32, 9
OPEN, CLOSE, MINUS, PLUS, DOT, COLON = 91, 93, 45, 43, 46, 58
ZERO, NINE, BIG_T, BIG_Z = 48, 57, 84, 90
APOSTROPHE, LEFT, RIGHT = 39, 40, 41
SMALL_N, SMALL_P, SMALL_U, SMALL_I, SMALL_T = 110, 112, 117, 105, 116
MAX_DIGITS = 18
"""Longer numbers could overflow 64 bits."""
MOST_ROADS = 5000
"""Of a trip: attention compares all pairs of its points, 1.4 GB in a training step. The longest
trip of public data has 177 roads, and the public code takes 2,000."""
TIME_BYTES = 19
NO_DAY = -(1 << 40)


@compiled
def _past_blanks(text, i, b):  # type: ignore[no-untyped-def]
    while i < b and (text[i] == SPACE or text[i] == TAB):
        i += 1
    return i


@compiled
def _list_inside(text, a, b):  # type: ignore[no-untyped-def]
    """Return the bounds of what stands between blanks and one pair of brackets, if any."""
    a = _past_blanks(text, a, b)
    while b > a and (text[b - 1] == SPACE or text[b - 1] == TAB):
        b -= 1
    if b - a >= 2 and text[a] == OPEN and text[b - 1] == CLOSE:
        a = _past_blanks(text, a + 1, b - 1)
        b -= 1
    return a, b


@compiled
def _past_numpy_name(text, i, b):  # type: ignore[no-untyped-def]
    """Return the place after `np.int64(` at i, or of any width; i where there is none."""
    if i + 8 > b or text[i] != SMALL_N or text[i + 1] != SMALL_P or text[i + 2] != DOT:
        return i
    k = i + 3
    if text[k] == SMALL_U:
        k += 1
    if k + 3 > b or text[k] != SMALL_I or text[k + 1] != SMALL_N or text[k + 2] != SMALL_T:
        return i
    k += 3
    first = k
    while k < b and ZERO <= text[k] <= NINE:
        k += 1
    return k + 1 if k > first and k < b and text[k] == LEFT else i


@compiled
def parse_roads(text, a, b, out, used):  # type: ignore[no-untyped-def]
    """Write the integers of `text[a:b]` to `out[used:]`; return how many, or -1 if unparsable.

    Each is digits with or without a minus, or the same as numpy 2 shows it: `np.int64(745)`.
    """
    i, b = _list_inside(text, a, b)
    if i == b:
        return 0
    count = 0
    while True:
        i = _past_blanks(text, i, b)
        inside = _past_numpy_name(text, i, b)
        wrapped = inside > i
        i = inside
        sign = 1
        if i < b and text[i] == MINUS:
            sign = -1
            i += 1
        first = i
        value = 0
        while i < b and ZERO <= text[i] <= NINE:
            value = value * 10 + (text[i] - ZERO)
            i += 1
        if i == first or i - first > MAX_DIGITS:
            return -1
        if wrapped:
            if i == b or text[i] != RIGHT:
                return -1
            i += 1
        out[used + count] = sign * value
        count += 1
        i = _past_blanks(text, i, b)
        if i == b:
            return count
        if text[i] != COMMA:
            return -1
        i += 1


@compiled
def _two(text, i):  # type: ignore[no-untyped-def]
    high = text[i] - ZERO
    low = text[i + 1] - ZERO
    if 0 <= high <= 9 and 0 <= low <= 9:
        return high * 10 + low
    return -1


@compiled
def _day_number(year, month, day):  # type: ignore[no-untyped-def]
    """Return the days since 1970-01-01, or NO_DAY where the calendar has no such day."""
    if month < 1 or month > 12 or day < 1 or year < 1:
        return NO_DAY
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    if month == 2:
        longest = 29 if leap else 28
    elif month == 4 or month == 6 or month == 9 or month == 11:
        longest = 30
    else:
        longest = 31
    if day > longest:
        return NO_DAY
    # The year begins in March, so that the leap day is its last.
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@compiled
def _date(text, i):  # type: ignore[no-untyped-def]
    """Return the days since 1970-01-01 of a `YYYY-MM-DD` at i, or NO_DAY."""
    century, year = _two(text, i), _two(text, i + 2)
    month, day = _two(text, i + 5), _two(text, i + 8)
    if century < 0 or year < 0 or text[i + 4] != MINUS or text[i + 7] != MINUS:
        return NO_DAY
    return _day_number(century * 100 + year, month, day)


@compiled
def _second_of_day(text, i):  # type: ignore[no-untyped-def]
    """Return the seconds since midnight of an `HH:MM:SS` at i, or -1."""
    hour, minute, second = _two(text, i), _two(text, i + 3), _two(text, i + 6)
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 60):
        return -1
    if text[i + 2] != COLON or text[i + 5] != COLON:
        return -1
    return hour * 3600 + minute * 60 + second


@compiled
def _past_fraction(text, i, b):  # type: ignore[no-untyped-def]
    if i + 1 < b and text[i] == DOT and ZERO <= text[i + 1] <= NINE:
        i += 1
        while i < b and ZERO <= text[i] <= NINE:
            i += 1
    return i


@compiled
def _past_zone(text, i, b):  # type: ignore[no-untyped-def]
    """Return the place after a `Z`, `+hh:mm`, `+hhmm` or `+hh` at i; i where there is none."""
    if i < b and text[i] == BIG_Z:
        return i + 1
    if i + 3 > b or (text[i] != PLUS and text[i] != MINUS) or not 0 <= _two(text, i + 1) <= 23:
        return i
    k = i + 3
    if k < b and text[k] == COLON:
        return k + 3 if k + 3 <= b and 0 <= _two(text, k + 1) <= 59 else i
    return k + 2 if k + 2 <= b and 0 <= _two(text, k) <= 59 else k


@compiled
def _quote(text, i, b):  # type: ignore[no-untyped-def]
    """Return how many bytes a quote at i takes: in a quoted cell of CSV `"` is written twice."""
    if i < b and text[i] == APOSTROPHE:
        return 1
    if i < b and text[i] == QUOTE:
        return 2 if i + 1 < b and text[i + 1] == QUOTE else 1
    return 0


@compiled
def _closes(text, opened, length, i, b):  # type: ignore[no-untyped-def]
    """Return whether the quote at `opened` stands at i again."""
    return i + length <= b and text[i] == text[opened] and _quote(text, i, b) == length


@compiled
def parse_times(text, a, b, out, used):  # type: ignore[no-untyped-def]
    """Write the times of `text[a:b]` as seconds to `out[used:]`; return how many, or -1.

    A time is `YYYY-MM-DDTHH:MM:SS`, or with a space for the T, a fraction (dropped) and a zone
    designator (ignored: what counts is the wall clock that is written). Each may stand in quotes,
    as Python and JSON write lists of text.
    """
    i, b = _list_inside(text, a, b)
    if i == b:
        return 0
    count = 0
    while True:
        opened = _past_blanks(text, i, b)
        quote = _quote(text, opened, b)
        i = opened + quote
        if i + TIME_BYTES > b or (text[i + 10] != BIG_T and text[i + 10] != SPACE):
            return -1
        days = _date(text, i)
        second = _second_of_day(text, i + 11)
        if days == NO_DAY or second < 0:
            return -1
        out[used + count] = days * 86400 + second
        count += 1
        i = _past_zone(text, _past_fraction(text, i + TIME_BYTES, b), b)
        if quote:
            if not _closes(text, opened, quote, i, b):
                return -1
            i += quote
        i = _past_blanks(text, i, b)
        if i == b:
            return count
        if text[i] != COMMA:
            return -1
        i += 1


@compiled
def _cell(text, i):  # type: ignore[no-untyped-def]
    """Return begin, end and the place of the separator after the cell at i, and if it is whole."""
    while text[i] == SPACE:
        i += 1
    if text[i] != QUOTE:
        begin = i
        while text[i] != COMMA and text[i] != NEWLINE:
            i += 1
        end = i
        if text[i] == NEWLINE and end > begin and text[end - 1] == RETURN:
            end -= 1
        return begin, end, i, True
    i += 1
    begin = i
    while text[i] != NEWLINE:
        if text[i] == QUOTE:
            if text[i + 1] != QUOTE:
                break
            i += 1
        i += 1
    end = i
    if text[i] == NEWLINE:
        return begin, end, i, False
    i += 1
    whole = True
    while text[i] != COMMA and text[i] != NEWLINE:
        whole = whole and (text[i] == SPACE or text[i] == RETURN)
        i += 1
    return begin, end, i, whole


@compiled
def cut_lines(text, stop, place, bounds, problem, counts):  # type: ignore[no-untyped-def]
    """Find the wanted cells of the whole lines of `text[:stop]`, which ends with a newline.

    A line with a quote that is not closed ends at its newline all the same, so one bad line
    cannot swallow the next.

    Args:
        place: For each column of the file its place among the wanted ones; -1: not wanted.
        bounds: By line and wanted column, filled with where the cell begins and ends.
        problem: By line, filled with OK, BLANK or UNPARSABLE.
        counts: By line, filled with the number of its cells.
    """
    width = len(place)
    i = 0
    line = 0
    while i < stop:
        if text[i] == NEWLINE or (text[i] == RETURN and text[i + 1] == NEWLINE):
            i += 1 if text[i] == NEWLINE else 2
            problem[line] = BLANK
            line += 1
            continue
        cells = 0
        good = True
        while True:
            begin, end, i, whole = _cell(text, i)
            good = good and whole
            if cells < width and place[cells] >= 0:
                bounds[line, place[cells], 0] = begin
                bounds[line, place[cells], 1] = end
            cells += 1
            i += 1
            if text[i - 1] == NEWLINE:
                break
        problem[line] = OK if good and cells == width else UNPARSABLE
        counts[line] = cells
        line += 1


@compiled
def parse_lists(  # type: ignore[no-untyped-def]
    text, rid_bounds, time_bounds, road, time, points, problem, detail_a, detail_b
):
    """Parse the lists of the lines that are whole; return how many points they have.

    Writes `road` and `time` (packed by point), and by line: `points`, `problem` (UNPARSABLE or
    LENGTHS) and its two details. A line with a problem has no points.
    """
    used = 0
    for line in range(len(points)):
        points[line] = 0
        if problem[line] != OK:
            continue
        count = parse_roads(text, rid_bounds[line, 0], rid_bounds[line, 1], road, used)
        times = parse_times(text, time_bounds[line, 0], time_bounds[line, 1], time, used)
        if count < 0 or times < 0:
            problem[line] = UNPARSABLE
            detail_a[line] = BAD_ROADS if count < 0 else BAD_TIMES
        elif count != times:
            problem[line] = LENGTHS
            detail_a[line] = count
            detail_b[line] = times
        else:
            points[line] = count
            used += count
    return used


@compiled
def parse_each(  # type: ignore[no-untyped-def]
    text, bounds, times, out, count
):
    """Parse each text as one list of roads, or of times, on its own: see `parse_lists`.

    Writes the values packed, and to `count` how many each text has, or -1 where it is unparsable.
    """
    used = 0
    for line in range(len(count)):
        if times:
            found = parse_times(text, bounds[line, 0], bounds[line, 1], out, used)
        else:
            found = parse_roads(text, bounds[line, 0], bounds[line, 1], out, used)
        count[line] = found
        used += max(found, 0)
    return used


@compiled
def parse_singles(  # type: ignore[no-untyped-def]
    text, bounds, times, out, count
):
    """Parse each text as one road id, or one time, without brackets.

    Fills `out`, and `count` with 1, with 0 where there is nothing but blanks, or with -1 where the
    text is something else.
    """
    longest = 0
    for line in range(len(count)):
        longest = max(longest, bounds[line, 1] - bounds[line, 0])
    values = np.empty(longest // 2 + 1, np.int64)
    for line in range(len(count)):
        a, b = bounds[line, 0], bounds[line, 1]
        start = _past_blanks(text, a, b)
        if start == b:
            count[line] = 0
            continue
        if text[start] == OPEN:
            count[line] = -1
            continue
        found = parse_times(text, a, b, values, 0) if times else parse_roads(text, a, b, values, 0)
        count[line] = 1 if found == 1 else -1
        out[line] = values[0] if found == 1 else 0


@compiled
def _position(values, a, b, value):  # type: ignore[no-untyped-def]
    """Return where `value` stands in the ascending `values[a:b]`, or -1."""
    while a < b:
        middle = (a + b) // 2
        if values[middle] < value:
            a = middle + 1
        elif values[middle] > value:
            b = middle
        else:
            return middle
    return -1


@compiled
def judge_trips(  # type: ignore[no-untyped-def]
    road_id, dense, offset, sorted_candidate, road, time, points, problem, detail_a, detail_b
):
    """Replace the road ids by indices and mark trips that the road network contradicts.

    `dense`: the ids are 0..R-1. `offset` and `sorted_candidate` hold each road's candidates,
    ascending. Details: UNKNOWN_ROAD the id; NOT_CONNECTED both ids; TIME_BACK the position.
    """
    roads = len(road_id)
    begin = 0
    for line in range(len(points)):
        end = begin + points[line]
        if problem[line] == OK and points[line] < 2:
            problem[line] = SHORT
            detail_a[line] = points[line]
        if problem[line] == OK and points[line] > MOST_ROADS:
            problem[line] = LONG
            detail_a[line] = points[line]
        if problem[line] == OK:
            for k in range(begin, end):
                value = road[k]
                if dense:
                    index = value if 0 <= value < roads else -1
                else:
                    index = _position(road_id, 0, roads, value)
                if index < 0:
                    problem[line] = UNKNOWN_ROAD
                    detail_a[line] = value
                    break
                road[k] = index
        if problem[line] == OK:
            for k in range(begin, end - 1):
                here, there = road[k], road[k + 1]
                if _position(sorted_candidate, offset[here], offset[here + 1], there) < 0:
                    problem[line] = NOT_CONNECTED
                    detail_a[line] = road_id[here]
                    detail_b[line] = road_id[there]
                    break
                if time[k + 1] < time[k]:
                    problem[line] = TIME_BACK
                    detail_a[line] = k + 1 - begin
                    break
        begin = end


@compiled
def count_faults(  # type: ignore[no-untyped-def]
    offset, sorted_candidate, trip_offset, road, time, missing, back
):
    """Count, for each trip, its moves that the network lacks and the steps its clock runs back.

    `offset` and `sorted_candidate` hold each road's candidates, ascending.
    """
    for trip in range(len(trip_offset) - 1):
        for k in range(trip_offset[trip], trip_offset[trip + 1] - 1):
            here = road[k]
            if _position(sorted_candidate, offset[here], offset[here + 1], road[k + 1]) < 0:
                missing[trip] += 1
            if time[k + 1] < time[k]:
                back[trip] += 1


MIX_A, MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@compiled
def _mixed(value):  # type: ignore[no-untyped-def]
    """Return the bits of a number spread over all 64 (the finisher of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * MIX_A
    value = (value ^ (value >> np.uint64(27))) * MIX_B
    return value ^ (value >> np.uint64(31))


@compiled
def describe_trips(  # type: ignore[no-untyped-def]
    length_m, road, time, points, problem, way_m, spent_s, start_s, content
):
    """Fill in, for each good line, the way without the last road, its time, start and a hash.

    The hash is of all roads and times in their order.
    """
    begin = 0
    for line in range(len(points)):
        end = begin + points[line]
        if problem[line] == OK:
            total = 0.0
            mixed = _mixed(np.uint64(points[line]) + GOLDEN)
            for k in range(begin, end):
                mixed = _mixed(mixed ^ np.uint64(road[k])) + GOLDEN
                mixed = _mixed(mixed ^ np.uint64(time[k])) + GOLDEN
                if k + 1 < end:
                    total += length_m[road[k]]
            way_m[line] = total
            spent_s[line] = time[end - 1] - time[begin]
            start_s[line] = time[begin]
            content[line] = mixed
        begin = end
