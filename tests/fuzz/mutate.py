"""Damage without a guide: cuts, insertions and replacements drawn from a seed."""

import random

SPECIAL = [b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"\0", b"[", b"]", b"-", b" ", b"\xff",
           b"\xef\xbb\xbf", b"9" * 25, b"nan", b"1e999", b"T", b"Z", b".", b"{", b"}", b"'",
           b"\t", b":", b"null", b"\x80", b"\xff\xff\xff\x7f", b"../", b"/etc/x", b"*", b"&a"]


def mutated(data: bytes, draw: random.Random, words: tuple[str, ...] = ()) -> bytes:
    """Return the data after one to six changes."""
    own = [word.encode().decode("unicode_escape").encode("latin-1") for word in words]
    for _ in range(draw.randint(1, 6)):
        at = draw.randint(0, len(data))
        until = min(len(data), at + draw.choice([0, 0, 1, 1, 2, 9, 200]))
        kind = draw.random()
        if kind < 0.2 and data:
            bit = at % len(data)
            data = data[:bit] + bytes([data[bit] ^ (1 << draw.randrange(8))]) + data[bit + 1:]
            continue
        if kind < 0.3:
            new = data[at:until] * draw.choice([2, 3, 50])
        elif kind < 0.4:
            new = draw.randbytes(draw.randint(0, 9))
        else:
            new = draw.choice(SPECIAL + own)
        data = data[:at] + new + data[until:]
    return data
