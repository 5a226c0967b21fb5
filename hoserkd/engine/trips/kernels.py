"""The compiled loops over the bytes of a trip file and over its points.

Plain functions of arrays without records: numba compiles them once and keeps the result beside
this file. Codes of what is wrong with a line are those of `validation.Cause`.
"""

from hoserkd.engine.compiled import compiled

OK = 0
UNPARSABLE = 1
LENGTHS = 2
SHORT = 3
UNKNOWN_ROAD = 4
NOT_CONNECTED = 5
TIME_BACK = 6
BLANK = 255

# What `detail_a` of an UNPARSABLE line says.
BAD_CELLS = 0
BAD_ROADS = 1
BAD_TIMES = 2

NEWLINE, RETURN, QUOTE, COMMA, SPACE, TAB = 10, 13, 34, 44, 32, 9
OPEN, CLOSE, MINUS, PLUS, DOT, COLON = 91, 93, 45, 43, 46, 58
ZERO, NINE, BIG_T, BIG_Z = 48, 57, 84, 90
MAX_DIGITS = 18
"""Longer numbers could overflow 64 bits."""
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
def parse_roads(text, a, b, out, used):  # type: ignore[no-untyped-def]
    """Write the integers of `text[a:b]` to `out[used:]`; return how many, or -1 if unparsable."""
    i, b = _list_inside(text, a, b)
    if i == b:
        return 0
    count = 0
    while True:
        i = _past_blanks(text, i, b)
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
    """Return the place after a `Z` or `+hh:mm` at i; i where there is none."""
    if i < b and text[i] == BIG_Z:
        return i + 1
    if (
        i + 6 <= b
        and (text[i] == PLUS or text[i] == MINUS)
        and text[i + 3] == COLON
        and 0 <= _two(text, i + 1) <= 23
        and 0 <= _two(text, i + 4) <= 59
    ):
        return i + 6
    return i


@compiled
def parse_times(text, a, b, out, used):  # type: ignore[no-untyped-def]
    """Write the times of `text[a:b]` as seconds to `out[used:]`; return how many, or -1.

    A time is `YYYY-MM-DDTHH:MM:SS`, or with a space for the T, a fraction (dropped) and a zone
    designator (ignored: what counts is the wall clock that is written).
    """
    i, b = _list_inside(text, a, b)
    if i == b:
        return 0
    count = 0
    while True:
        i = _past_blanks(text, i, b)
        if i + TIME_BYTES > b or (text[i + 10] != BIG_T and text[i + 10] != SPACE):
            return -1
        days = _date(text, i)
        second = _second_of_day(text, i + 11)
        if days == NO_DAY or second < 0:
            return -1
        out[used + count] = days * 86400 + second
        count += 1
        i = _past_zone(text, _past_fraction(text, i + TIME_BYTES, b), b)
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
def parse_lines(  # type: ignore[no-untyped-def]
    text, stop, width, rid_column, time_column, road, time, points, problem, detail_a, detail_b
):
    """Parse the whole lines of `text[:stop]`, which ends with a newline; return their number.

    A line with a quote that is not closed ends at its newline all the same, so one bad line
    cannot swallow the next.

    Writes `road` and `time` (packed by point), and by line: `points`, `problem` (OK, UNPARSABLE,
    LENGTHS or BLANK) and its two details. A line with a problem has no points.
    """
    i = 0
    line = 0
    used = 0
    while i < stop:
        if text[i] == NEWLINE or (text[i] == RETURN and text[i + 1] == NEWLINE):
            i += 1 if text[i] == NEWLINE else 2
            points[line] = 0
            problem[line] = BLANK
            line += 1
            continue
        cells = 0
        good = True
        rid_a = rid_b = time_a = time_b = 0
        while True:
            begin, end, i, whole = _cell(text, i)
            good = good and whole
            if cells == rid_column:
                rid_a, rid_b = begin, end
            elif cells == time_column:
                time_a, time_b = begin, end
            cells += 1
            i += 1
            if text[i - 1] == NEWLINE:
                break
        code, a, b, count = OK, 0, 0, 0
        if not good or cells != width:
            code, a, b = UNPARSABLE, BAD_CELLS, cells
        else:
            count = parse_roads(text, rid_a, rid_b, road, used)
            times = parse_times(text, time_a, time_b, time, used)
            if count < 0:
                code, a = UNPARSABLE, BAD_ROADS
            elif times < 0:
                code, a = UNPARSABLE, BAD_TIMES
            elif count != times:
                code, a, b = LENGTHS, count, times
        problem[line] = code
        detail_a[line] = a
        detail_b[line] = b
        points[line] = count if code == OK else 0
        used += points[line]
        line += 1
    return line


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
