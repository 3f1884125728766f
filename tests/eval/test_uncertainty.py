"""The error estimate: calibrated on rows it has not seen, and only as good as what it is told."""

import pytest
import torch

from mfik.errors import ArgumentError
from mfik.eval import LEVELS, ErrorCalibration, plot_reliability, reliability
from mfik.eval.uncertainty import one_and_two_steps


def rows(panda, n, seed):
    generator = torch.Generator().manual_seed(seed)
    pose = panda.fk(torch.zeros(1, 7)).expand(n, 7)
    return 0.2 * torch.randn(n, 7, generator=generator), pose


class Noisy(torch.nn.Module):
    """Lands beside joints 0, the farther the more its two ways disagree: an error that the distance tells."""

    def forward(self, q, target_pose, r, t):
        size = q[:, :1].abs()
        return -q / (1 - r) + size * torch.where((r == 0) & (t == 1), torch.ones_like(q) * q.roll(1, -1).sign(), 0.0)


def test_bounds_keep_their_promise_on_other_rows(panda, tmp_path):
    model = Noisy()
    calibration = ErrorCalibration.fit(model, panda, *rows(panda, 20_000, 0))
    q_ref, pose = rows(panda, 5000, 1)
    result = reliability(calibration.estimate(model, q_ref, pose), panda, pose)
    for coverage in (result.coverage_pos, result.coverage_rot):
        assert coverage == pytest.approx(LEVELS, abs=0.03)
    assert result.rank_correlation_pos > 0.6 and result.rank_correlation_rot > 0.6
    plot_reliability(tmp_path / "r.png", result)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_wrong_calibration_is_found_out(panda):
    """Calibrated where the network errs little, asked where it errs five times as much."""
    model = Noisy()
    q_ref, pose = rows(panda, 5000, 0)
    calibration = ErrorCalibration.fit(model, panda, 0.2 * q_ref, pose)
    result = reliability(calibration.estimate(model, q_ref, pose), panda, pose)
    assert result.coverage_pos[LEVELS.index(0.9)] < 0.6


def test_one_and_two_steps_agree_for_an_exact_flow(panda):
    def exact(q, target_pose, r, t):
        return (0.3 - q) / (1 - r)

    q_ref, pose = rows(panda, 10, 0)
    one, two = one_and_two_steps(exact, q_ref, pose)
    torch.testing.assert_close(one, torch.full_like(one, 0.3))
    torch.testing.assert_close(two, one)


def test_too_few_rows_are_refused(panda):
    with pytest.raises(ArgumentError, match="2000 rows, got 100"):
        ErrorCalibration.fit(Noisy(), panda, *rows(panda, 100, 0))
