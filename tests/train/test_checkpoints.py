"""Checkpoints: what they hold, which of them stay, and which files are refused."""

import json

import pytest
import torch
from tiny_run import config, fit, states_equal, trainer

from mfik.errors import BundleError
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.train.v1 import (
    MeanFlowTrainer,
    TrainConfig,
    load_checkpoint,
    load_model,
    load_settings,
    save_checkpoint,
)
from mfik.train.v1.checkpoint import is_round


def test_round_epochs_can_be_resumed_from_and_others_are_listed(panda, data, tmp_path):
    run = trainer(panda, tmp_path, num_epochs=100)
    for epoch in range(1, 101):
        run.save(f"checkpoint_epoch_{epoch}.pth")
    left = {int(path.stem.rpartition("_")[2]) for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {*range(10, 101, 10), 96, 97, 98, 99}
    with pytest.raises(BundleError, match=r"epoch_55\.pth: no such checkpoint; there are .*checkpoint_epoch_50\.pth"):
        run.resume(tmp_path / "checkpoints" / "checkpoint_epoch_55.pth")
    round_ones = [n for n in range(1, 1001) if is_round(tmp_path / f"checkpoint_epoch_{n}.pth", num_epochs=1000)]
    assert round_ones == [*range(100, 1001, 100)]
    assert not is_round(tmp_path / "checkpoint_step_100.pth", num_epochs=1000)


def test_only_the_newest_numbered_checkpoints_stay(panda, data, tmp_path):
    fit(trainer(panda, tmp_path, save_interval=5, keep_checkpoints=2), data)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"best_model.pth", "final_model.pth", "checkpoint_step_25.pth", "checkpoint_epoch_3.pth"}


def test_checkpoint_is_plain_data_and_reads_back(panda, data, tmp_path):
    run = trainer(panda, tmp_path, num_epochs=1)
    fit(run, data)
    path = tmp_path / "checkpoints" / "final_model.pth"
    state = torch.load(path, weights_only=True)
    assert json.loads(state["train_config"]) == run.config.to_dict()
    assert TrainConfig.from_dict(json.loads(state["train_config"])) == run.config
    model, robot, _ = load_model(path)
    assert states_equal(model.state_dict(), run.ema.module.state_dict())
    assert robot.fingerprint() == panda.fingerprint()


def test_a_failed_save_leaves_the_old_file(panda, tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"x": torch.ones(3)})
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"x": lambda: None})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_with_zeroed_bytes_anywhere_is_refused(panda, data, tmp_path):
    run = trainer(panda, tmp_path, num_epochs=1)
    fit(run, data)
    path = tmp_path / "checkpoints" / "final_model.pth"
    whole, damaged = path.read_bytes(), tmp_path / "damaged.pth"
    for start in (len(whole) // 2, *range(0, len(whole), 4999)):
        part = bytes(64)[: len(whole) - start]
        if whole[start : start + 64] == part:
            continue  # there were zeros anyway
        damaged.write_bytes(whole[:start] + part + whole[start + 64 :])
        with pytest.raises(BundleError, match=r"damaged\.pth"):
            load_checkpoint(damaged)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ema": None}, "expected 'ema'"),
        ({"optimizer": None}, "expected 'optimizer'"),
        ({"train_config": None}, "expected 'train_config'"),
        ({"train_config": '{"betas": 3}'}, "inconsistent"),
        ({"train_config": "{"}, "inconsistent"),
        ({"model_config": '{"type": "v1"}'}, "inconsistent|network"),
        ({"model_config": "[]"}, "inconsistent|network"),
        ({"robot": "{}"}, "incomplete|inconsistent"),
        ({"ema": {"head.weight": torch.zeros(1)}}, "inconsistent"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_or_has_a_damaged_one_is_refused(panda, data, tmp_path, change, words):
    run = trainer(panda, tmp_path, num_epochs=1)
    state = {**run.state_dict(), **change}
    save_checkpoint(tmp_path / "a.pth", {name: value for name, value in state.items() if value is not None})
    readers = [trainer(panda).resume] if "train_config" not in change else []
    readers += [load_settings] if not {"ema", "optimizer"} & set(change) else []
    readers += [load_model] if not {"optimizer", "train_config"} & set(change) else []
    if change.get("model_config"):
        readers.remove(load_settings)
    for read in readers:
        with pytest.raises(BundleError, match=rf"a\.pth.*({words})"):
            read(tmp_path / "a.pth")
    assert readers


def test_bad_checkpoints_are_refused(panda, data, tmp_path):
    run = trainer(panda, tmp_path, num_epochs=1)
    fit(run, data)
    good = tmp_path / "checkpoints" / "final_model.pth"
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(good.read_bytes()[:-500])
    foreign = tmp_path / "foreign.pth"
    torch.save({"weights": torch.ones(2)}, foreign)
    for path in (truncated, foreign, tmp_path / "none.pth"):
        with pytest.raises(BundleError, match=path.name):
            load_checkpoint(path)
    other = MeanFlowTrainer(MeanFlowNet(ModelConfig.preset(6, "tiny")), config(robot="ur10"))
    with pytest.raises(BundleError, match=r"panda.*ur10"):
        other.resume(good)
    wider = MeanFlowTrainer(MeanFlowNet(ModelConfig.panda_tiny()), config(), robot=panda)
    with pytest.raises(BundleError, match="--preset"):
        wider.resume(good)
