"""What only a GPU can show: huge arrays, the current stream and device, capture."""

import pytest
import torch

from mfik.ops import (
    _reference,
    adaptive_weight,
    draw_batch,
    fk,
    jacobian,
    refine,
    sample_batch,
    solve,
    weighted_residual_loss,
)

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_rows_past_two_to_the_31_elements():
    n = 2**31 // 7 + 1000  # 8.6 GB an array
    if torch.cuda.mem_get_info()[0] < 60e9:
        pytest.skip("this CUDA device has less than 60 GB free")
    u = torch.zeros(n, 7, device="cuda")
    u[-999:] = torch.randn(999, 7, device="cuda")
    v = torch.zeros_like(u)
    weight = adaptive_weight(u, v)
    torch.testing.assert_close(weight[-999:], _reference.adaptive_weight(u[-999:], v[-999:]))
    assert (weight[:-999] == weight[0]).all()
    u.requires_grad_()
    one = torch.ones(n, 1, device="cuda")
    loss, _ = weighted_residual_loss(u, v, v[:0], one, one, one)
    torch.testing.assert_close(loss[-999:], u[-999:].square().sum(-1, keepdim=True))
    (gradient,) = torch.autograd.grad(loss.sum(), u)
    torch.testing.assert_close(gradient[-999:], 2 * u[-999:].detach())
    del loss, gradient
    index = torch.arange(n - 999, n, device="cuda")
    pose = torch.ones(1, 7, device="cuda").expand(n, 7)[-1000:]
    data = (u.detach()[-1000:], pose, v[-1000:], 0.5 * one[-1000:])
    batch = sample_batch(*data, index - (n - 1000), seed=0, step=0, num_jvp=0, num_endpoint=0)
    torch.testing.assert_close(batch.q + (1 - batch.r) * batch.v, v[-999:], rtol=0, atol=1e-4)


def test_runs_on_the_current_stream(panda):
    stream = torch.cuda.Stream()
    q = torch.zeros(4096, 7, device="cuda")
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what is queued behind this sees q changed only on the same stream
        q.fill_(1.0)
        weight = adaptive_weight(q, torch.zeros_like(q), 1e-3, 1.0)
    stream.synchronize()
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / 7.001))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_runs_on_the_device_of_its_arguments(panda):
    assert torch.cuda.current_device() == 0
    batch = draw_batch(panda, 100, seed=0, step=0, num_jvp=0, num_endpoint=0, device="cuda:1")
    expected = draw_batch(panda, 100, seed=0, step=0, num_jvp=0, num_endpoint=0)
    assert batch.q.device.index == 1 and torch.cuda.current_device() == 0
    torch.testing.assert_close(batch.q.cpu(), expected.q)


def test_a_captured_draw_reads_the_step_of_its_replay(panda):
    step = torch.zeros(1, dtype=torch.int64, device="cuda")
    draw = dict(seed=3, num_jvp=40, num_endpoint=10, device="cuda")
    draw_batch(panda, 100, step=step, **draw)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = draw_batch(panda, 100, step=step, **draw)
    for number in (5, 6):
        step.fill_(number)
        graph.replay()
        for value, expected in zip(batch, draw_batch(panda, 100, step=number, **draw), strict=True):
            assert torch.equal(value, expected)


def test_kinematics_of_rows_past_two_to_the_31_elements(panda):
    n = 2**31 // 7 + 1000
    if torch.cuda.mem_get_info()[0] < 60e9:
        pytest.skip("this CUDA device has less than 60 GB free")
    q = (0.5 * sum(panda.limits())).float().cuda().repeat(n, 1)
    q[-999:] = panda.sample(999, dtype=torch.float32).cuda()
    pose = fk(panda, q)
    torch.testing.assert_close(pose[-999:], fk(panda, q[-999:]), rtol=0, atol=0)
    result = refine(panda, q, pose, max_iterations=2)
    assert result.converged.all() and torch.equal(result.q[-999:], q[-999:])
    del pose, result
    n //= 6
    torch.testing.assert_close(jacobian(panda, q[-n:])[-999:], jacobian(panda, q[-999:]), rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, 1000, 300_007])
def test_every_row_is_solved_once_whatever_block_takes_it(panda, batch):
    generator = torch.Generator("cuda").manual_seed(0)
    q, solution, seeds = (panda.sample(n, generator) for n in (batch, batch, 63))
    target = fk(panda, solution)
    first, second = (solve(panda, q, target, seeds, tol_pos=1e-4, tol_rot=1e-4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.converged.double().mean() > 0.99 and (first.attempts > 0).all()
    on_cpu = solve(panda, q[:500].cpu(), target[:500].cpu(), seeds.cpu(), tol_pos=1e-4, tol_rot=1e-4)
    # Multiply-adds round otherwise; an attempt that hangs on that is rare.
    assert (on_cpu.attempts == first.attempts[:500].cpu()).double().mean() > 0.97 or batch == 1


def test_kinematics_can_be_captured(panda):
    q = panda.sample(1000, dtype=torch.float32).cuda()
    target, seeds = (
        fk(panda, panda.sample(1000, dtype=torch.float32).cuda()),
        panda.sample(7, dtype=torch.float32).cuda(),
    )

    def run():
        return fk(panda, q), jacobian(panda, q), *refine(panda, q, target), *solve(panda, q, target, seeds)

    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    q.copy_(panda.sample(1000, torch.Generator().manual_seed(9)))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, run(), strict=True))
