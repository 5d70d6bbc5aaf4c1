"""Fused attention against the written-out softmax, and against loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from genesplice.model import attention
from genesplice.model.attention import attend, make_plan, rope, rotate
from genesplice.model.sequence import Block

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


def draw(batch=2, heads=3, length=50, width=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, batch, heads, length, width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).unbind(0)


def attend_by_loops(q, k, v, is_real, half_window):
    """The definition, one query at a time, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys = [
                    j
                    for j in range(q.shape[2])
                    if (half_window is None or abs(i - j) <= half_window)
                    and (is_real[b, j] or i == j)
                ]
                scores = torch.stack(
                    [q[b, h, i] @ k[b, h, j] / math.sqrt(q.shape[3]) for j in keys]
                )
                weights = (scores - scores.max()).exp()
                weights = weights / weights.sum()
                out[b, h, i] = sum(w * v[b, h, j] for w, j in zip(weights, keys, strict=True))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("half_window", [None, 0, 1, 5, 48, 49, 500])
@pytest.mark.parametrize("gap", [None, slice(0, 7), slice(20, 33), slice(0, 50)])
def test_both_backends_are_the_softmax(half_window, gap):
    q, k, v = draw()
    is_real = torch.ones(2, 50, dtype=torch.bool)
    if gap is not None:
        is_real[1, gap] = False
    truth = attend_by_loops(q, k, v, is_real, half_window)
    plan = make_plan(is_real, half_window)
    reference = attend(q, k, v, plan, "reference")
    fused = attend(q, k, v, plan, "sdpa")
    error_of_reference = (reference - truth).abs().max()
    assert error_of_reference < 1e-6
    assert (fused - truth).abs().max() <= 2 * error_of_reference + 1e-7
    assert not fused.isnan().any()


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 200),
    half_window=st.one_of(st.none(), st.integers(0, 70)),
    seed=st.integers(0, 99),
)
def test_fused_equals_reference_for_any_length_and_window(length, half_window, seed):
    q, k, v = draw(1, 2, length, 4, seed)
    is_real = torch.rand(1, length, generator=torch.Generator().manual_seed(seed)) < 0.8
    plan = make_plan(is_real, half_window)
    torch.testing.assert_close(
        attend(q, k, v, plan), attend(q, k, v, plan, "reference"), atol=2e-6, rtol=1e-5
    )


def test_gradients_agree():
    plan = make_plan(torch.ones(2, 70, dtype=torch.bool), 9)
    grads = []
    for backend in ("sdpa", "reference"):
        q, k, v = (x.requires_grad_() for x in draw(length=70))
        attend(q, k, v, plan, backend).square().sum().backward()
        grads.append((q.grad, k.grad, v.grad))
    for fused, reference in zip(*grads, strict=True):
        torch.testing.assert_close(fused, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half_window", [None, 16])
@pytest.mark.parametrize("all_real", [True, False])
def test_cpu_never_leaves_the_fused_kernel(half_window, all_real):
    block = Block(32, 4, dropout=0.2).train()
    is_real = torch.ones(2, 100, dtype=torch.bool)
    is_real[0, 40:60] = all_real
    x = torch.randn(2, 100, 32, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        block(x, make_plan(is_real, half_window), rope(100, 8, x.device)).sum().backward()
    names = {event.key for event in prof.key_averages()}
    assert FUSED in names
    assert f"{FUSED}_backward" in names
    assert "aten::_scaled_dot_product_attention_math" not in names
    assert "aten::_softmax" not in names


def test_rotation_depends_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    turns = rope(100, 16, q.device)

    def score(i, j):
        return float((rotate(q, turns[[i]]) * rotate(k, turns[[j]])).sum())

    assert score(3, 10) == pytest.approx(score(80, 87), abs=1e-5)
    assert score(3, 10) != pytest.approx(score(3, 30), abs=1e-3)
    assert float(rotate(q, turns[[55]]).norm()) == pytest.approx(float(q.norm()), rel=1e-6)


def test_rotation_without_complex_numbers_is_the_same():
    """Apple's GPUs lack complex numbers and float64: other devices use sines and cosines."""

    class Real(torch.Tensor):
        device = torch.device("mps")

    turns = rope(50, 16, torch.device("cpu"))
    x = torch.randn(2, 3, 50, 16)
    pairs = rotate(x.as_subclass(Real), turns).as_subclass(torch.Tensor)
    torch.testing.assert_close(pairs, rotate(x, turns), atol=1e-6, rtol=1e-5)


def test_no_wide_number_reaches_another_device():
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for one in (out,) if isinstance(out, torch.Tensor) else ():
                if one.device.type == "meta":
                    dtypes.add(one.dtype)
            return out

    dtypes = set()
    with Watch():
        turns = rope(50, 16, torch.device("meta"))
        out = rotate(torch.randn(2, 3, 50, 16, device="meta"), turns)
    assert out.shape == (2, 3, 50, 16)
    assert dtypes == {torch.float32}


@pytest.mark.parametrize(
    ("width", "dtype", "has_kernel", "is_taken"),
    [
        (64, torch.bfloat16, True, True),
        (256, torch.float16, True, True),
        (264, torch.bfloat16, True, False),
        (60, torch.bfloat16, True, False),
        (64, torch.float32, True, False),
        (64, torch.bfloat16, False, False),
    ],
)
def test_flash_takes_half_precision_and_heads_of_its_widths(
    width, dtype, has_kernel, is_taken, monkeypatch
):
    class OnDevice(torch.Tensor):
        """As if on a GPU: what decides is read, nothing is computed."""

        is_cuda = True

    monkeypatch.setattr(attention, "flash_version", lambda: "2.8" if has_kernel else None)
    q = torch.zeros(1, 1, 2, width, dtype=dtype)
    assert attention.is_flash_able(q.as_subclass(OnDevice)) == is_taken
    assert not attention.is_flash_able(q)
