"""What it would cost to follow a pickle's instructions, found out without following them.

A pickle of a few hundred bytes can make a tuple of itself twice, thirty times over: hashing that
one, as a dictionary's key is hashed, takes a minute, and forty times over the night. Numbers of
any length can be made to fall into one slot of a dictionary. Neither is in any checkpoint.
"""

import pickletools
from collections.abc import Iterable

MAX_MEMO = 1 << 24
"""CPython allocates the memo up to the largest index that a pickle names."""
MAX_COST = 1 << 24
"""Values touched, those inside of values counted each time; a public checkpoint has 20,000."""
LARGEST = 1 << 64
_MARK = -1
_OPENERS = (pickletools.markobject, pickletools.stackslice)


class RefusedPickleError(ValueError):
    """Something in a pickle that a checkpoint does not need; the message completes a sentence."""


def check_cost(content: bytes, allowed: frozenset[str]) -> None:
    """Refuse a pickle that would take long to follow, or has instructions that are not allowed.

    Raises:
        RefusedPickleError: It does; says at which byte.
        ValueError: It is no pickle.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    spent = 0
    for opcode, argument, position in pickletools.genops(content):
        name = opcode.name
        if name not in allowed:
            raise RefusedPickleError(f"the instruction {name} at byte {position}")
        if isinstance(argument, int) and not -LARGEST < argument < LARGEST:
            raise RefusedPickleError(f"a number of {argument.bit_length()} bits at byte {position}")
        if "PUT" in name or name == "MEMOIZE":
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            if not 0 <= index <= MAX_MEMO:
                raise RefusedPickleError(f"a memo index of {argument} at byte {position}")
            memo[index] = _top(stack)
        elif "GET" in name:
            stack.append(memo.get(int(argument or 0), 1))
        elif name == "DUP":
            stack.append(_top(stack))
        elif name == "MARK":
            stack.append(_MARK)
        else:
            weight = 1 + sum(_popped(stack, opcode.stack_before))
            spent += weight
            stack += [min(weight, MAX_COST)] * len(opcode.stack_after)
        if spent > MAX_COST:
            raise RefusedPickleError(f"values inside of values that would take over {MAX_COST:,} "
                                     f"steps to read, at byte {position}")


def _top(stack: list[int]) -> int:
    return max(stack[-1], 1) if stack else 1


def _popped(stack: list[int], before: Iterable[object]) -> list[int]:
    """Take off the stack what an instruction takes and return the weights."""
    wanted = list(before)
    taken = []
    if any(kind in _OPENERS for kind in wanted):
        while stack and stack[-1] != _MARK:
            taken.append(stack.pop())
        if stack:
            stack.pop()
        wanted = wanted[:next(i for i, kind in enumerate(wanted) if kind in _OPENERS)]
    for _ in wanted:
        if stack:
            taken.append(max(stack.pop(), 1))
    return taken
