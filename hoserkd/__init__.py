"""hoserkd: distil a language model of movement into a small road-network model."""

__version__ = "0.1.0"
