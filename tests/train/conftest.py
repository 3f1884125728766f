"""Rows that the tests of training share."""

import pytest

from mfik.data import generate
from mfik.robots import load_robot


@pytest.fixture(scope="session")
def data():
    """Return rows for `tiny_run.fit`; nobody writes to them."""
    return generate(load_robot("panda"), 700, seed=1)
