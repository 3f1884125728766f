"""Learning-rate schedules at their corners."""

import pytest

from mfik.train.v1 import TrainConfig, learning_rate


def test_warmup_rises_linearly_from_zero():
    config = TrainConfig()
    assert learning_rate(config, 0, 10_000) == 0.0
    assert learning_rate(config, 500, 10_000) == pytest.approx(0.5e-4)
    assert learning_rate(config, 1000, 10_000) == pytest.approx(1e-4)


@pytest.mark.parametrize(("kind", "middle"), [("cosine", (1e-4 + 1e-6) / 2), ("linear", (1e-4 + 1e-6) / 2)])
def test_decay_ends_at_min_lr(kind, middle):
    config = TrainConfig(scheduler_type=kind)
    assert learning_rate(config, 10_999, 11_000) == pytest.approx(1e-6)
    assert learning_rate(config, 50_000, 11_000) == pytest.approx(1e-6)
    assert learning_rate(config, 6000, 11_001) == pytest.approx(middle)


def test_cosine_and_linear_differ_where_they_should():
    quarter = [learning_rate(TrainConfig(scheduler_type=kind), 3500, 11_001) for kind in ("cosine", "linear")]
    assert quarter[0] == pytest.approx(1e-6 + 99e-6 * 0.853553, rel=1e-5)
    assert quarter[1] == pytest.approx(1e-6 + 99e-6 * 0.75)


def test_unknown_length_holds_the_base_rate():
    assert learning_rate(TrainConfig(), 10**9, None) == 1e-4
