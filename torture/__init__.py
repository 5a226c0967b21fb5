"""Breaks hoserkd on purpose, and counts what it survives: `python -m torture --help`."""
