"""The MeanFlow loss against flows whose mean velocity is known, and against its degenerate form."""

import pytest
import torch

from mfik import ops
from mfik.data import FileSource, StepRows, generate
from mfik.errors import ArgumentError
from mfik.kinematics import position_error_m
from mfik.model import SingleStep
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, jvp_target, meanflow_loss


def straight_flow(q, target_pose, r, t):
    """All trajectories end in one point: u = (q1 - q)/(1 - r), whatever t is."""
    return (0.3 - q) / (1 - r)


GENERATOR = torch.tensor([[0.2, -1.1, 0.0], [0.9, 0.1, 0.4], [-0.3, 0.5, -0.6]], dtype=torch.float64)


def rotating_flow(q, target_pose, r, t):
    """dq/ds = A q: u = (exp(A (t - r)) - I) q / (t - r), curved trajectories, D is far from zero."""
    steps = torch.linalg.matrix_exp(GENERATOR * (t - r).unsqueeze(-1))
    return ((steps @ q.unsqueeze(-1)).squeeze(-1) - q) / (t - r)


@pytest.mark.parametrize(
    ("flow", "velocity"),
    [(straight_flow, lambda q, r: (0.3 - q) / (1 - r)), (rotating_flow, lambda q, r: q @ GENERATOR.T)],
)
def test_identity_holds_for_a_known_mean_velocity(flow, velocity, rng):
    q = torch.randn(50, 3, generator=rng, dtype=torch.float64)
    r = 0.6 * torch.rand(50, 1, generator=rng, dtype=torch.float64)
    t = r + 0.35
    target = jvp_target(flow, q, None, r, t, velocity(q, r))
    torch.testing.assert_close(target, flow(q, None, r, t), rtol=1e-10, atol=1e-12)


def test_identity_fails_with_the_tangent_left_out(rng):
    q = torch.randn(50, 3, generator=rng, dtype=torch.float64)
    r = 0.6 * torch.rand(50, 1, generator=rng, dtype=torch.float64)
    u = rotating_flow(q, None, r, r + 0.35)
    assert (u - q @ GENERATOR.T).norm(dim=-1).mean() > 0.05


def batch_of(panda, size, num_jvp, num_endpoint):
    data = generate(panda, size, coupling="local", seed=3)
    return ops.sample_batch(
        data.q, data.target_pose, data.q_target, data.r, seed=0, step=0, num_jvp=num_jvp, num_endpoint=num_endpoint
    )


@pytest.mark.parametrize("weight_type", ["adaptive", "uniform", "error"])
def test_weights_follow_their_formula(panda, weight_type):
    torch.manual_seed(0)
    model = MeanFlowNet(ModelConfig.panda_tiny())
    torch.nn.init.normal_(model.head.weight, std=0.1)
    batch = batch_of(panda, 64, 0, 0)
    config = TrainConfig(loss_weight_type=weight_type, fk_loss_weight=0.0)
    squared = (model(batch.q, batch.target_pose, batch.r, batch.t) - batch.v).square().sum(-1)
    weight = {
        "adaptive": ((batch.q_target - batch.q).square().sum(-1) + 1e-4) ** -0.5,
        "uniform": torch.ones_like(squared),
        "error": (squared + 1e-4) ** -0.5,
    }[weight_type]
    expected = (weight * squared).mean()
    torch.testing.assert_close(meanflow_loss(model, batch, 0, 0, config, panda).loss, expected)


def test_gradient_does_not_flow_through_the_target(panda):
    torch.manual_seed(0)
    model = MeanFlowNet(ModelConfig.panda_tiny())
    torch.nn.init.normal_(model.head.weight, std=0.1)
    batch = batch_of(panda, 32, 32, 8)
    config = TrainConfig(loss_weight_type="uniform", fk_loss_weight=0.0)
    loss = meanflow_loss(model, batch, 32, 8, config, panda).loss
    gradient = torch.autograd.grad(loss, model.head.weight)[0]
    target = jvp_target(model, batch.q, batch.target_pose, batch.r, batch.t, batch.v)
    frozen = (model(batch.q, batch.target_pose, batch.r, batch.t) - target.detach()).square().sum(-1).mean()
    torch.testing.assert_close(gradient, torch.autograd.grad(frozen, model.head.weight)[0])


def test_fk_loss_pulls_the_solution_to_the_pose(panda):
    """With the mean velocity off, gradient steps on the one-step solution's error alone reduce that error."""
    batch = batch_of(panda, 64, 64, 64)
    model = MeanFlowNet(ModelConfig.panda_tiny())
    config = TrainConfig(fk_loss_weight=1.0)
    before = meanflow_loss(model, batch, 64, 64, config, panda).fk_loss
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        output = meanflow_loss(model, batch, 64, 64, config, panda)
        output.loss.backward()
        optimizer.step()
    assert output.fk_loss < 0.5 * before


def test_unknown_weight_is_an_error(panda):
    config = TrainConfig(loss_weight_type="magic")
    with pytest.raises(ArgumentError, match="magic"):
        meanflow_loss(MeanFlowNet(ModelConfig.panda_tiny()), batch_of(panda, 4, 0, 0), 0, 0, config, panda)


@pytest.mark.slow
def test_meanflow_beats_untrained_and_collapsed_networks(panda):
    """The literal residual loss goes to zero and learns nothing; the MeanFlow loss lands nearer, in millimetres."""
    data = generate(panda, 100_000, coupling="local", sigma=0.3, seed=1)
    held_out = generate(panda, 2000, coupling="local", sigma=0.3, seed=2)
    start = ops.sample_batch(
        held_out.q, held_out.target_pose, held_out.q_target, held_out.r,
        seed=0, step=0, num_jvp=2000, num_endpoint=2000,
    ).q  # fmt: skip

    def train(loss_type, steps):
        torch.manual_seed(0)
        config = TrainConfig(
            loss_type=loss_type, loss_weight_type="uniform", fk_loss_weight=0.0, learning_rate=2e-3, batch_size=512,
            warmup_steps=50, max_steps=steps, num_epochs=1000, ema_decay=0.99, device="cpu",
        )  # fmt: skip
        trainer = MeanFlowTrainer(MeanFlowNet(ModelConfig.panda_tiny()), config, robot=panda)
        # A head that answers something, so that a residual of zero has to be learned.
        torch.nn.init.normal_(trainer.model.head.weight, std=0.05)
        trainer.fit(FileSource(data, 512, seed=0), held_out)
        return trainer

    def error_mm(model):
        with torch.no_grad():
            pose = panda.fk(SingleStep(model.eval())(start, held_out.target_pose))
        return 1e3 * position_error_m(pose, held_out.target_pose).median().item()

    untrained = error_mm(MeanFlowNet(ModelConfig.panda_tiny()))
    collapsed_trainer = train("residual", 400)
    rows = data.rows(0, 4096)[:]
    batch = ops.sample_batch(
        rows["q"], rows["target_pose"], rows["q_target"], rows["r"], seed=9, step=0, num_jvp=4096, num_endpoint=512
    )
    with torch.no_grad():
        residual = meanflow_loss(
            collapsed_trainer.model, batch, 4096, 512, collapsed_trainer.config, panda
        ).meanflow_residual.item()
    collapsed = error_mm(collapsed_trainer.ema.module)
    trained = error_mm(train("meanflow", 1500).ema.module)
    assert residual < 0.02, "the literal loss is expected to be (almost) solved by a constant network"
    assert collapsed > 0.9 * untrained
    assert trained < 0.7 * untrained, f"{trained:.0f} mm after training, {untrained:.0f} mm before"
    assert trained < 0.7 * collapsed


def linear_model(gain):
    """u = gain * q: D along a velocity w is gain * w."""

    def model(q, target_pose, r, t):
        return gain * q

    return model


def test_regression_is_the_loss_without_a_derivative(panda, monkeypatch):
    batch = batch_of(panda, 16, 16, 8)
    monkeypatch.setattr("mfik.train.v1.loss.total_derivative", None)  # called by nothing
    config = TrainConfig(loss_type="regression", loss_weight_type="uniform", fk_loss_weight=0.0)
    output = meanflow_loss(linear_model(2.0), batch, 16, 8, config, panda)
    torch.testing.assert_close(output.loss, (2.0 * batch.q - batch.v).square().sum(-1).mean())
    assert output.jvp_norm == 0


@pytest.mark.parametrize(("tangent", "along"), [("conditional", lambda b: b.v), ("predicted", lambda b: 2.0 * b.q)])
def test_the_jvp_runs_along_the_chosen_velocity(panda, tangent, along):
    batch = batch_of(panda, 16, 16, 0)
    config = TrainConfig(jvp_tangent=tangent, loss_weight_type="uniform", fk_loss_weight=0.0)
    loss = meanflow_loss(linear_model(2.0), batch, 16, 0, config, panda).loss
    target = batch.v + (batch.t - batch.r) * 2.0 * along(batch)
    torch.testing.assert_close(loss, (2.0 * batch.q - target).square().sum(-1).mean())


def test_the_correction_is_clipped_to_the_velocity(panda):
    batch = batch_of(panda, 16, 16, 16)
    config = TrainConfig(jvp_clip=0.5, loss_weight_type="uniform", fk_loss_weight=0.0)
    loss = meanflow_loss(linear_model(2.0), batch, 16, 16, config, panda).loss
    torch.testing.assert_close(loss, (2.0 * batch.q - 1.5 * batch.v).square().sum(-1).mean())


def test_hard_examples_are_the_rows_of_the_largest_loss(panda):
    batch = batch_of(panda, 10, 0, 0)
    config = TrainConfig(hard_ratio=0.25, loss_weight_type="uniform")
    loss = meanflow_loss(linear_model(2.0), batch, 0, 0, config, panda).loss
    squared = (2.0 * batch.q - batch.v).square().sum(-1)
    torch.testing.assert_close(loss, squared.sort().values[-3:].mean())  # ceil(2.5)


def sampled(panda, data, step, **settings):
    config = TrainConfig(device="cpu", endpoint_ratio=0.5, **settings)
    trainer = MeanFlowTrainer(MeanFlowNet(ModelConfig.panda_tiny()), config, robot=panda)
    trainer.global_step = step
    trainer._begin_step(len(data))
    return trainer._sampler.training_sample(StepRows.of(data[:]), trainer._sampler.phase(step))


def test_the_curriculum_goes_from_short_and_near_to_whole(panda):
    data = generate(panda, 64, coupling="global", seed=3)
    whole, _, num_endpoint = sampled(panda, data, 9)
    half, _, no_endpoint = sampled(panda, data, 4, curriculum_steps=10)
    last = sampled(panda, data, 9, curriculum_steps=10)
    assert all(torch.equal(a, b) for a, b in zip(last[0], whole, strict=True)) and last[2] == num_endpoint == 8
    full = sampled(panda, data, 4)[0]
    assert no_endpoint == 0
    torch.testing.assert_close(half.v, 0.5 * full.v)
    torch.testing.assert_close(half.t - half.r, 0.5 * (full.t - full.r))
    torch.testing.assert_close(half.q + (1 - half.r) * half.v, half.q_target, rtol=0, atol=1e-5)
    expected = ops.adaptive_weight(half.q, half.q_target)
    assert torch.equal(half.weight, expected)


def test_augmentation_moves_the_reference_and_keeps_the_solution(panda):
    data = generate(panda, 64, coupling="local", sigma=0.1, seed=3)
    plain, (noisy, _, num_endpoint) = sampled(panda, data, 4)[0], sampled(panda, data, 4, reference_noise=0.2)
    again, other = (sampled(panda, data, step, reference_noise=0.2)[0] for step in (4, 5))
    assert torch.equal(noisy.q, again.q) and not torch.equal(noisy.v - plain.v, other.v - sampled(panda, data, 5)[0].v)
    assert num_endpoint == 8 and torch.equal(noisy.q_target, plain.q_target)
    torch.testing.assert_close(noisy.q + (1 - noisy.r) * noisy.v, noisy.q_target, rtol=0, atol=1e-5)
    assert (noisy.v - plain.v).std() == pytest.approx(0.2, rel=0.2)
