"""Reflow: targets that the network itself leads to; and the loss that keeps answers within the limits."""

import pytest
import torch

from mfik import ops
from mfik.data import OnlineSource, StepRows, free_check, generate
from mfik.model import SingleStep, make_network
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, meanflow_loss
from mfik.train.v1.sampling import Phase

PLAIN, REFLOW = Phase(curriculum=False, reflow=False), Phase(curriculum=False, reflow=True)


@pytest.fixture
def trainer(panda):
    torch.manual_seed(0)
    config = TrainConfig(
        batch_size=256, flow_matching_ratio=0.25, endpoint_ratio=0.5, reflow_start=3, max_steps=6, device="cpu"
    )
    trainer = MeanFlowTrainer(make_network("v2", "nano", panda), config, panda)
    torch.nn.init.normal_(trainer.ema.module.head.weight, std=0.02)
    return trainer


def test_targets_become_the_solutions_that_the_network_leads_to(panda, trainer):
    rows = StepRows.of(generate(panda, 256, coupling="global", seed=1)[:])
    before, after = (trainer._sampler.training_sample(rows, phase).batch for phase in (PLAIN, REFLOW))
    start = before.q_target - before.v
    torch.testing.assert_close(after.q_target - after.v, start)
    torch.testing.assert_close(after.q, start + after.r * after.v, rtol=1e-4, atol=1e-4)
    network = trainer.ema.module
    with torch.no_grad():
        answer, restarted = (
            SingleStep(each)(start, before.target_pose) for each in (network.without_restarts(), network)
        )
    solution, taken, _ = ops.refine(panda, answer, before.target_pose, max_iterations=10, tol_pos=1e-4, tol_rot=1e-4)
    assert 0.2 < taken.double().mean() < 1
    assert not torch.allclose(restarted[taken], answer[taken], atol=0.1), "some would lead elsewhere by another start"
    torch.testing.assert_close(after.q_target[taken], solution[taken])
    torch.testing.assert_close(after.q_target[~taken], before.q_target[~taken])
    assert not torch.allclose(after.q_target[taken], before.q_target[taken], atol=0.1)
    assert trainer._sampler.accepted.item() == pytest.approx(taken.double().mean().item())


def test_reflow_follows_the_averaged_network(panda, trainer):
    rows = StepRows.of(generate(panda, 256, coupling="global", seed=1)[:])
    targets = []
    for scale in (1.0, 2.0, 1.0):
        with torch.no_grad():
            trainer.ema.module.head.weight.mul_(scale if len(targets) < 2 else 0.5)
        targets.append(trainer._sampler.training_sample(rows, REFLOW).batch.q_target)
    assert not torch.allclose(targets[0], targets[1], atol=0.1)
    torch.testing.assert_close(targets[0], targets[2])


def test_reflow_leads_to_no_target_in_self_collision(ur10):
    torch.manual_seed(0)
    rows = StepRows.of(generate(ur10, 512, coupling="global", seed=1, collision_free=True)[:])
    is_free, model = free_check(ur10, "cpu"), make_network("v2", "nano", ur10)
    free, accepted = {}, {}
    for collision_free in (False, True):
        config = TrainConfig(batch_size=512, reflow_start=1, collision_free=collision_free, device="cpu")
        sampler = MeanFlowTrainer(model, config, ur10)._sampler
        free[collision_free] = is_free(sampler.training_sample(rows, REFLOW).batch.q_target)
        accepted[collision_free] = sampler.accepted.item()
    assert not free[False].all() and free[True].all()
    assert 0.2 < accepted[True] < accepted[False]


def test_after_reflow_no_row_pays_for_a_tangent_and_endpoints_keep_their_loss(panda, trainer):
    rows = StepRows.of(generate(panda, 256, seed=1)[:])
    before, after = (trainer._sampler.training_sample(rows, phase) for phase in (PLAIN, REFLOW))
    assert (before.num_jvp, before.num_endpoint) == (192, 96)
    assert (after.num_jvp, after.num_endpoint) == (0, 96)
    assert (after.batch.r[:96] == 0).all() and (after.batch.t[:96] == 1).all()
    output = meanflow_loss(trainer.model, *after, trainer.config, panda)
    assert output.jvp_norm == 0 and output.fk_loss > 0


def test_a_run_reflows_from_its_step_on(panda, trainer):
    source = OnlineSource(panda, 256, seed=0, epoch_rows=256 * 6)
    seen = []
    sample = trainer._sampler.training_sample
    trainer._sampler.training_sample = lambda *arguments: seen.append(arguments[-1].reflow) or sample(*arguments)
    trainer.fit(source, source.validation_rows(100))
    assert seen == [False, False, False, True, True, True]
    assert not MeanFlowTrainer(trainer.model, TrainConfig(device="cpu"), panda)._sampler.phase(10**6).reflow, (
        "off by default"
    )


def test_an_answer_that_is_not_finite_leaves_the_row_as_it_was(panda, trainer):
    with torch.no_grad():
        trainer.ema.module.head.bias.fill_(float("nan"))
    rows = StepRows.of(generate(panda, 256, coupling="global", seed=1)[:])
    batch = trainer._sampler.training_sample(rows, REFLOW).batch
    assert all(tensor.isfinite().all() for tensor in batch)


def test_the_limit_loss_pulls_answers_inside(panda):
    torch.manual_seed(0)
    network = make_network("v1", "tiny", panda)
    rows = StepRows.of(generate(panda, 256, coupling="global", seed=1)[:])
    losses = {}
    for weight in (0.0, 2.0):
        config = TrainConfig(
            batch_size=256, flow_matching_ratio=0.0, endpoint_ratio=1.0, limit_loss_weight=weight, device="cpu"
        )
        trainer = MeanFlowTrainer(network, config, panda)
        sample = trainer._sampler.training_sample(rows, PLAIN)
        with torch.no_grad():
            network.head.bias.fill_(1.0)
        losses[weight] = meanflow_loss(network, *sample, config, panda).loss
    answer = SingleStep(network)(sample.batch.q, sample.batch.target_pose)
    beyond = (answer - panda.clamp(answer)).square().sum(-1).mean()
    torch.testing.assert_close(losses[2.0] - losses[0.0], 2 * beyond)
    losses[2.0].backward()
    assert beyond > 0 and network.head.bias.grad.isfinite().all()
