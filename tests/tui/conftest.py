"""Fixtures of the dashboard's tests."""

import pytest
from literals import LiteralSource, store_of_every_state


@pytest.fixture
def source() -> LiteralSource:
    """A store of six runs of every state."""
    return store_of_every_state()
