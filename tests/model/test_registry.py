"""The registry of network types: what is registered goes everywhere, what a file claims is checked first."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from mfik.data import generate
from mfik.errors import ArgumentError
from mfik.export import NATIVE_FILE, document, load_bundle, write_native
from mfik.model import NETWORK_TYPES, Network, NetworkConfig, build_network, make_network, read_config
from mfik.model.registry import NetworkType
from mfik.robots import load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, load_model


@dataclass
class LineConfig(NetworkConfig):
    TYPE: ClassVar = "line"
    SIZES: ClassVar = {"default": {}, "wide": {"width": 64}}
    LIMITS: ClassVar = {"width": 100}

    width: int = 8


class LineNet(Network):
    """A network of one hidden layer."""

    def __init__(self, config, robot):
        super().__init__()
        self.config = config
        self.input, self.head = nn.Linear(config.dof + 9, config.width), nn.Linear(config.width, config.dof)

    def forward(self, q, target_pose, r, t):
        return self.head(nn.functional.silu(self.input(torch.cat((q, target_pose, r, t), dim=-1))))


def test_one_line_makes_a_type_known_to_training_export_and_loading(panda, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORK_TYPES, "line", NetworkType(LineConfig, LineNet))
    model = make_network("line", "wide", panda)
    assert model.num_parameters() == 17 * 64 + 64 * 7 + 7
    trainer = MeanFlowTrainer(model, TrainConfig(device="cpu", warmup_steps=0), panda, tmp_path)
    before = model.head.weight.detach().clone()
    trainer.train_step(generate(panda, 8, seed=1)[:])
    assert not torch.equal(model.head.weight, before), "trained by a JVP, for want of forward_with_tangent"
    trainer.save("line.pth")
    loaded, _, _ = load_model(tmp_path / "checkpoints" / "line.pth")
    assert type(loaded) is LineNet and loaded.config == model.config
    write_native(tmp_path / NATIVE_FILE, model, document(model, panda))
    loaded, _, description = load_bundle(tmp_path)
    assert type(loaded) is LineNet and description["model"] == {"type": "line", "dof": 7, "width": 64}
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("network_type", NETWORK_TYPES)
def test_a_configuration_survives_json_and_refuses_sizes_over_its_limits(network_type, panda):
    config = NETWORK_TYPES[network_type].config.preset(panda.dof)
    assert config.TYPE == network_type
    assert read_config(json.loads(json.dumps(config.to_dict()))) == config
    for name, largest in {**config.LIMITS, "dof": 16}.items():
        read_config({**config.to_dict(), name: largest})
        for value in (0, largest + 1, 8.0, True, None):
            with pytest.raises(ArgumentError, match=f"model.{name}: expected an integer from 1 to {largest}, got"):
                read_config({**config.to_dict(), name: value})
    with pytest.raises(ArgumentError, match="expected 6 .the robot's joints., got 7"):
        build_network(config.to_dict(), load_robot("ur10"))


def test_unknown_types_are_named(panda):
    with pytest.raises(ArgumentError, match=r"network_type: expected one of \('v1', 'v2'\), got 'v9'"):
        make_network("v9", "tiny", panda)
    with pytest.raises(ArgumentError, match=r"model.type: expected one of \('v1', 'v2'\), got None; update mfik"):
        read_config({"dof": 7})
