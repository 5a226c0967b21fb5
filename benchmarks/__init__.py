"""Measurements of hoserkd against plain forms: `python -m benchmarks.<name> [--quick]`."""
