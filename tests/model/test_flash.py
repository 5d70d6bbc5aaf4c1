"""flash-attn's interface: by a stand-in of its layout on any machine, for real on CUDA."""

import inspect
import sys
from itertools import pairwise
from types import ModuleType

import pytest
import torch

from genesplice.model import attention as flash
from genesplice.model.attention import (
    attend,
    backend_name,
    flash_attend,
    flash_version,
    is_flash_able,
    make_packing,
    make_plan,
)


def draw(batch=2, heads=2, length=60, width=8, device="cpu"):
    generator = torch.Generator().manual_seed(3)
    shape = (3, batch, heads, length, width)
    return torch.randn(shape, generator=generator).to(device).unbind(0)


def sequence(q, k, v, window):
    """One sequence, (tokens, heads, width), by loops over queries in float64."""
    left, right = window
    out = torch.zeros_like(q, dtype=torch.float64)
    for i in range(len(q)):
        low = 0 if left < 0 else max(i - left, 0)
        high = len(k) if right < 0 else min(i + right + 1, len(k))
        scores = torch.einsum("hd,jhd->hj", q[i].double(), k[low:high].double())
        weights = (scores / q.shape[2] ** 0.5).softmax(1)
        out[i] = torch.einsum("hj,jhd->hd", weights, v[low:high].double())
    return out.to(q.dtype)


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    alibi_slopes=None, deterministic=False, return_attn_probs=False,
):  # fmt: skip
    assert q.dtype in flash.HALF
    assert q.ndim == 4
    assert q.stride(-1) == 1
    return torch.stack([sequence(*row, window_size) for row in zip(q, k, v, strict=True)])


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False, block_table=None,
):  # fmt: skip
    assert q.dtype in flash.HALF
    assert q.ndim == 3
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert int(cu_seqlens_q[-1]) == len(q)
    borders = cu_seqlens_q.tolist()
    lengths = [b - a for a, b in pairwise(borders)]
    assert max_seqlen_q == max_seqlen_k == max(lengths)
    cut = [part.split(lengths) for part in (q, k, v)]
    return torch.cat([sequence(*row, window_size) for row in zip(*cut, strict=True)])


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("flash_attn")
    module.__version__ = "2.7.4"
    module.__spec__ = sys.__spec__
    module.flash_attn_func = flash_attn_func
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)


def compare(is_real, half_window):
    """Error of the flash path and of plain half precision, both against fp32."""
    q, k, v = draw(length=is_real.shape[1])
    plan = make_plan(is_real, half_window)
    packing = None if bool(is_real.all()) else make_packing(is_real)
    truth = attend(q, k, v, plan, "reference")
    half = [part.bfloat16() for part in (q, k, v)]
    real = is_real[:, None, :, None]
    found = flash_attend(*half, packing, plan.half_window)
    assert found.dtype == torch.bfloat16
    assert found.shape == q.shape
    plain = attend(*half, plan, "sdpa")
    errors = [((x.float() - truth) * real).abs().max() for x in (found, plain)]
    return float(errors[0]), float(errors[1])


@pytest.mark.parametrize("half_window", [None, 0, 1, 7, 59, 200])
def test_the_flash_path_is_the_softmax(stand_in, half_window):
    error, of_plain = compare(torch.ones(2, 60, dtype=torch.bool), half_window)
    assert error <= 2 * of_plain + 1e-3


@pytest.mark.parametrize(("half_window", "gap"), [(None, (20, 33)), (7, (0, 9)), (7, (41, 60))])
def test_padding_is_packed_away(stand_in, half_window, gap):
    is_real = torch.ones(2, 60, dtype=torch.bool)
    is_real[1, slice(*gap)] = False
    error, of_plain = compare(is_real, half_window)
    assert error <= 2 * of_plain + 1e-3


def test_a_window_over_a_gap_is_refused(stand_in):
    is_real = torch.ones(1, 60, dtype=torch.bool)
    is_real[0, 20:30] = False
    packing = make_packing(is_real)
    assert packing.has_gaps
    with pytest.raises(ValueError, match="gaps"):
        flash_attend(*(x[:1].bfloat16() for x in draw()), packing, 7)
    assert not make_packing(torch.arange(60)[None] < 40).has_gaps


def test_without_cuda_it_is_not_chosen(stand_in):
    assert flash_version() == "2.7.4"
    q, _, _ = draw()
    assert not is_flash_able(q.bfloat16())
    if not torch.cuda.is_available():
        assert backend_name() == "torch SDPA"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("half_window", [None, 1, 32])
@pytest.mark.parametrize("all_real", [True, False])
def test_the_real_one(half_window, all_real):
    module = pytest.importorskip("flash_attn")
    for name in ("flash_attn_func", "flash_attn_varlen_func"):
        ours = inspect.signature(globals()[name]).parameters
        theirs = inspect.signature(getattr(module, name)).parameters
        assert list(theirs)[: len(ours)] == list(ours)
    q, k, v = draw(length=300, width=32, device="cuda")
    is_real = torch.ones(2, 300, dtype=torch.bool, device="cuda")
    is_real[1, 250:] = all_real
    plan = make_plan(is_real, half_window)
    truth = attend(q, k, v, plan, "reference")
    half = [part.bfloat16() for part in (q, k, v)]
    assert is_flash_able(half[0])
    real = is_real[:, None, :, None]
    error, of_plain = (
        ((attend(*half, plan, backend).float() - truth) * real).abs().max()
        for backend in ("flash", "sdpa")
    )
    assert error <= 2 * of_plain
