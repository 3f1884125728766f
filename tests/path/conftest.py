"""Fixtures of the tests of paths."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """Random numbers of NumPy, the same in every test."""
    return np.random.default_rng(0)
