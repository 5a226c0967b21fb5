"""Worlds in which the recorded faults happened."""

from five_roads import made_once, tiny

__all__ = ["made_once", "tiny"]
