"""Adapters: nothing at first, what the papers say afterwards, and a way to disk and back."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from genesplice.config import ModelConfig
from genesplice.errors import InputError
from genesplice.model.adapters import (
    add_adapters,
    load_weights,
    merge_adapters,
    save_delta,
    transformer_blocks,
)
from genesplice.model.genesplice import make_encoder

SMALL = ModelConfig(width=16, heads=2, bin_window=4, summary_window=2, dropout=0.0)


def make(seed=0):
    torch.manual_seed(seed)
    return torch.nn.ModuleDict({"encoder": make_encoder(SMALL)}).eval()


def window():
    return torch.randint(0, 4, (1, 2048), dtype=torch.uint8, generator=torch.Generator())


def encode(model):
    return model["encoder"](window()).bins


def disturb(model):
    """Move what learns as if it had."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)


def adapted(name):
    model = make()
    model["encoder"].requires_grad_(False)
    add_adapters(model["encoder"], name, rank=2)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_at_first_nothing_changes(name):
    assert torch.equal(encode(adapted(name)), encode(make()))


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_gradients_reach_the_adapters_and_nothing_else(name):
    model = adapted(name)
    disturb(model)
    encode(model).square().sum().backward()
    for key, parameter in model.named_parameters():
        is_adapter = ".parametrizations.weight.0." in key
        assert parameter.requires_grad == is_adapter, key
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_adapter, key


def test_lora_adds_a_product_of_the_rank():
    model, before = adapted("lora"), make().state_dict()
    disturb(model)
    kept = merge_adapters(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    wanted = {"qkv", "out", "expand", "contract"}
    assert {key.split(".")[-2] for key in changed} == wanted
    assert len(changed) == 4 * len(transformer_blocks(model["encoder"]))
    for key in changed:
        assert torch.linalg.matrix_rank(after[key] - before[key], atol=1e-4) == 2
        product = kept[f"up:{key}"] @ kept[f"down:{key}"]
        torch.testing.assert_close(after[key], before[key] + product)


@torch.no_grad()
def test_ia3_scales_keys_values_and_the_hidden_layer():
    model, plain = adapted("ia3"), make()
    disturb(model)
    block, before = (transformer_blocks(m["encoder"])[0] for m in (model, plain))
    x = torch.randn(3, 16)
    keys_values = block.qkv.parametrizations.weight[0].scale
    hidden = block.contract.parametrizations.weight[0].scale
    assert (len(keys_values), len(hidden)) == (32, 64)
    q, k, v = before.qkv(x).split(16, 1)
    wanted = torch.cat([q, k * keys_values[:16], v * keys_values[16:]], 1)
    torch.testing.assert_close(block.qkv(x), wanted)
    wide = before.expand(x)
    torch.testing.assert_close(block.contract(wide), before.contract(wide * hidden))


@torch.no_grad()
@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_merged_is_the_same_model(name):
    model = adapted(name)
    disturb(model)
    told = encode(model)
    assert not torch.allclose(told, encode(make()))
    merge_adapters(model)
    assert torch.equal(encode(model), told)


@pytest.mark.parametrize("name", ["lora", "ia3", None])
def test_base_and_delta_are_the_model(tmp_path, name):
    base, other = tmp_path / "base", tmp_path / "runs" / "model"
    for folder in (base, other):
        folder.mkdir(parents=True)
    save_file(make().state_dict(), base / "model.safetensors")
    model = make() if name is None else adapted(name)
    if name is None:
        model["encoder"].requires_grad_(False)
        transformer_blocks(model["encoder"])[-1].requires_grad_(True)
    model["head"] = torch.nn.Linear(2, 2)
    disturb(model)
    save_delta(model, merge_adapters(model), base, other)
    found, wanted = load_weights(other / "model.safetensors"), model.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (base, other)]
    assert sizes[1] < sizes[0] / 2
    # Both folders may move together.
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a delta without its base"):
        load_weights(other / "model.safetensors")
    base.mkdir()
    save_file(make(seed=1).state_dict(), base / "model.safetensors")
    with pytest.raises(InputError, match="another base"):
        load_weights(other / "model.safetensors")


def test_plain_weights_load_as_they_are(tmp_path):
    save_file(make().state_dict(), tmp_path / "model.safetensors")
    found = load_weights(tmp_path / "model.safetensors")
    assert found.keys() == load_file(tmp_path / "model.safetensors").keys()


def test_a_convolutional_encoder_has_nothing_to_adapt():
    encoder = make_encoder(ModelConfig(width=16, heads=2, arch="short_cnn"))
    with pytest.raises(InputError, match="without transformer blocks"):
        add_adapters(encoder, "lora")
