"""The network of type v1: size, conventions, tangents."""

import pytest
import torch

from mfik.errors import ArgumentError
from mfik.model import SingleStep
from mfik.model.v1 import ENCODINGS, PRESETS, MeanFlowNet, ModelConfig
from mfik.train.v1.loss import total_derivative


def random_net(config, dtype=torch.float64):
    """A network whose head is not zero, so that every layer matters."""
    torch.manual_seed(0)
    model = MeanFlowNet(config).to(dtype)
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return model.eval()


def inputs(n, dof, rng, dtype=torch.float64):
    q = torch.randn(n, dof, generator=rng, dtype=dtype)
    quat = torch.nn.functional.normalize(torch.randn(n, 4, generator=rng, dtype=dtype), dim=-1)
    pose = torch.cat((torch.randn(n, 3, generator=rng, dtype=dtype), quat), dim=-1)
    r = 0.5 * torch.rand(n, 1, generator=rng, dtype=dtype)
    return q, pose, r, r + 0.4


def test_panda_default_has_the_documented_size():
    assert abs(MeanFlowNet(ModelConfig.panda_default()).num_parameters() - 17.9e6) <= 0.1e6


@pytest.mark.parametrize(("size", "low", "high"), [("small", 0.9e6, 1.2e6), ("tiny", 0.09e6, 0.12e6)])
@pytest.mark.parametrize("dof", [7, 6])
def test_presets_have_their_sizes(dof, size, low, high):
    assert low < MeanFlowNet(ModelConfig.preset(dof, size)).num_parameters() < high


@pytest.mark.parametrize(
    ("name", "dof", "size"),
    [
        ("panda_default", 7, "default"),
        ("panda_small", 7, "small"),
        ("panda_tiny", 7, "tiny"),
        ("ur10_default", 6, "default"),
        ("ur10_tiny", 6, "tiny"),
    ],
)
def test_robots_have_configurations_by_name(name, dof, size):
    assert size in PRESETS and getattr(ModelConfig, name)() == ModelConfig.preset(dof, size)


def test_untrained_network_answers_the_reference(rng):
    q, pose, _, _ = inputs(5, 7, rng, torch.float32)
    assert torch.equal(SingleStep(MeanFlowNet(ModelConfig.panda_tiny()))(q, pose), q)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_signs_of_the_quaternion_are_one_rotation(encoding, rng):
    model = random_net(ModelConfig(width=16, num_blocks=2, cond_dim=8, encoding=encoding, encoding_dim=8))
    q, pose, r, t = inputs(9, 7, rng)
    flipped = torch.cat((pose[:, :3], -pose[:, 3:]), dim=-1)
    assert torch.equal(model(q, pose, r, t), model(q, flipped, r, t))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("n", [0, 1, 33])
def test_rows_are_independent_and_any_batch_size_works(encoding, n, rng):
    model = random_net(ModelConfig(dof=6, width=16, num_blocks=1, cond_dim=8, encoding=encoding, encoding_dim=8))
    q, pose, r, t = inputs(n, 6, rng)
    u = model(q, pose, r, t)
    assert u.shape == (n, 6)
    rows = [model(q[i : i + 1], pose[i : i + 1], r[i : i + 1], t[i : i + 1]) for i in range(n)]
    if n:
        torch.testing.assert_close(u, torch.cat(rows), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_jvp_matches_finite_differences(encoding, rng):
    model = random_net(ModelConfig(width=32, num_blocks=2, cond_dim=8, encoding=encoding, encoding_dim=8))
    q, pose, r, t = inputs(17, 7, rng)
    v = torch.randn(17, 7, generator=rng, dtype=torch.float64)
    u, derivative = total_derivative(model, q, pose, r, t, v)
    h = 1e-6
    plus, minus = (model(q + s * h * v, pose, r + s * h, t) for s in (1, -1))
    assert torch.equal(u, model(q, pose, r, t))
    assert derivative.norm() > 0.1  # a silent zero tangent would pass a relative test
    torch.testing.assert_close(derivative, (plus - minus) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dof", 0),
        ("width", 1.5),
        ("encoding", "wavelet"),
        ("encoding_dim", 7),
        ("encoding_scale", 0.0),
        ("dropout", 1.0),
    ],
)
def test_bad_configuration_names_the_field(field, value):
    with pytest.raises(ArgumentError, match=field):
        ModelConfig(**{field: value})


def test_configuration_survives_the_round_trip_and_refuses_strangers():
    config = ModelConfig.preset(8, "small")
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ArgumentError, match="v2"):
        ModelConfig.from_dict({**config.to_dict(), "type": "v2"})
    with pytest.raises(ArgumentError, match="depth"):
        ModelConfig.from_dict({**config.to_dict(), "depth": 3})
    with pytest.raises(ArgumentError, match="default"):
        ModelConfig.preset(7, "huge")
