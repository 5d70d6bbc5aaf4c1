"""Linear layers through oneDNN where that is faster.

On a CPU torch multiplies fp32 matrices with MKL, which runs at less than half speed on processors
that are not Intel's. oneDNN's kernels, which ship with torch, are written for each instruction
set: 2.2 times faster on an AMD EPYC with AVX-512, and they apply the activation on the way out.
Elsewhere (CUDA, float64, torch without oneDNN) the plain functions run.

Gradients of weights are products of two tall matrices, which oneDNN first copies in another order:
on Intel's processors MKL makes them in less than half the time.
"""

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `x @ weight.T` goes through oneDNN."""
    return bool(
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.is_autocast_enabled("cpu")
    )


@functools.cache
def _is_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def multiplies_tall(x: Tensor, weight: Tensor) -> bool:
    """Whether `a.T @ b` of tall matrices is best left to MKL."""
    return _is_intel() and torch.backends.mkl.is_available() and uses_onednn(x, weight)


def _multiply(
    x: Float[Tensor, "rows n"],
    weight: Float[Tensor, "out n"],
    bias: Float[Tensor, " out"] | None = None,
    activation: str = "none",
) -> Float[Tensor, "rows out"]:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")


class _Linear(torch.autograd.Function):
    """y = x W' + b, or y = max(x W' + b, 0)^2."""

    @staticmethod
    def forward(ctx, x, weight, bias, is_squared_relu):
        rows = x.reshape(-1, x.shape[-1])
        out = _multiply(rows, weight, bias, "relu" if is_squared_relu else "none")
        ctx.save_for_backward(rows, weight, out if is_squared_relu else None)
        ctx.has_bias, ctx.is_squared_relu = bias is not None, is_squared_relu
        if is_squared_relu:
            out = out * out
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rows, weight, positive = ctx.saved_tensors
        shape = grad.shape[:-1]
        grad = grad.reshape(-1, weight.shape[0])
        if positive is not None:
            # d max(z, 0)^2 = 2 max(z, 0), which is 0 wherever z was negative.
            grad = (grad * positive).mul_(2)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _multiply(grad, weight.t()).view(*shape, weight.shape[1])
        if ctx.needs_input_grad[1]:
            # The wider side as columns: faster either way round.
            if multiplies_tall(rows, weight):
                grad_weight = grad.t() @ rows
            elif weight.shape[0] > weight.shape[1]:
                grad_weight = _multiply(rows.t(), grad.t()).t().contiguous()
            else:
                grad_weight = _multiply(grad.t(), rows.t())
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, grad_bias, None


class Dense(nn.Linear):
    """`nn.Linear` with the same parameters and results, to rounding."""

    def forward(self, x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows out"]:
        """Apply y = x W' + b."""
        if not uses_onednn(x, self.weight):
            return super().forward(x)
        return _Linear.apply(x, self.weight, self.bias, False)


class SquaredReluDense(nn.Linear):
    """A linear layer followed by max(., 0)^2: a good and cheap activation for a transformer.

    Source: So et al., Primer: searching for efficient transformers, 2021, section 4.
    """

    def forward(self, x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows out"]:
        """Apply y = max(x W' + b, 0)^2."""
        if not uses_onednn(x, self.weight):
            return F.relu(super().forward(x)).square()
        return _Linear.apply(x, self.weight, self.bias, True)
