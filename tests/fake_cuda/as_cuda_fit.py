"""`mfik.fit.fit` on a device that is not there, to the last checkpoint."""

import pytest
from device import FakeCuda

from mfik import fit
from mfik.model import v2
from mfik.robots import load_robot
from mfik.train.v1 import load_model

PANDA = load_robot("panda")


@pytest.fixture
def published(monkeypatch):
    """Return what a run hands to export and evaluation, which do not use the device."""
    calls = []
    monkeypatch.setattr(fit, "publish", lambda output, settings, **details: calls.append(details) or details)
    monkeypatch.setattr(fit, "plot_run", lambda output: None)
    for name, value in {"_EPOCH_ROWS": 64, "_VAL_ROWS": 16, "_TRIAL_STEPS": 1, "_LEAST_STEPS": 4}.items():
        monkeypatch.setattr(fit, name, value)
    small = {"width": 16, "num_blocks": 1, "passes": 1, "training_passes": 2, "starts": 1}
    monkeypatch.setitem(v2.ModelConfig.SIZES, "nano", small)
    return calls


def test_a_fit_trains_on_the_device(tmp_path, published):
    settings = fit.FitSettings(minutes=0.03, batch_size=16, num=10, preset="nano", coupling="local")
    with FakeCuda() as cuda:
        fit.fit(PANDA, tmp_path / "run", settings, command=["fit"])
        assert {"sample_batch", "weighted_residual_loss", "fk_error", "refine"} <= set(cuda.launches)
        assert cuda.compiled and all(how == {"dynamic": False} for _, how in cuda.compiled)
    assert published[0]["hardware"] == "a device that is not there" and published[0]["processes"] == 1
    model, _, state = load_model(tmp_path / "run" / "checkpoints" / "final_model.pth")
    assert state["global_step"] >= 1 and all(value.isfinite().all() for value in model.state_dict().values())
    assert all(value.device.type == "cpu" for value in model.state_dict().values())


def test_targets_free_of_collision_are_trained_on_the_cpu(tmp_path, published):
    """What checks them runs there, also where there is a GPU."""
    settings = fit.FitSettings(minutes=0.01, batch_size=16, num=10, collision_free=True, processes=1, coupling="local")
    with FakeCuda() as cuda:
        fit.fit(PANDA, tmp_path / "run", settings, command=["fit"])
        assert not cuda.launches and not cuda.graphs
    assert published[0]["hardware"].startswith("1 process on")
