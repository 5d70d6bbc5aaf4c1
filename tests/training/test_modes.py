"""What learns in each mode, what is frozen, and what is written."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_finetuning import config

from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel
from genesplice.predict.expression import predict_expression
from genesplice.predict.models import load_model
from genesplice.training.finetuning import finetune, finetune_fold

FEW = [
    "finetune.core_bp=65536",
    "finetune.head_steps=2",
    "finetune.kernel=false",
    "finetune.validation_blocks=0",
]


def settings(mode, *more):
    epochs = 0 if mode in ("probe", "head") else 1
    return config(*FEW, f"finetune.mode={mode}", f"finetune.epochs={epochs}", *more)


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    """A folder with an encoder's weights."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(1)
    save_file(PretrainingModel(config().model, 8).state_dict(), folder / "model.safetensors")
    return folder


def changed(model, init):
    before = load_file(init / "model.safetensors")
    after = model.encoder.state_dict()
    return {name for name in after if not torch.equal(after[name], before[f"encoder.{name}"])}


WANTED = {
    "probe": set(),
    "head": set(),
    "last_n": {"decoder_blocks"},
    "lora": {"summary_blocks", "region_blocks", "decoder_blocks", "bin_blocks"},
    "ia3": {"summary_blocks", "region_blocks", "decoder_blocks", "bin_blocks"},
    "full": {"summary_blocks", "region_blocks", "decoder_blocks", "bin_blocks", "stem", "norm",
             "to_summaries", "to_regions", "from_regions", "from_summaries"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mode", WANTED)
def test_only_what_the_mode_says_moves(tiny_bundle, tmp_path, init, mode):
    folder = tmp_path / "a"
    delta = ["finetune.delta=true"] if mode != "full" else []
    model = finetune_fold(
        tiny_bundle, settings(mode, *delta), fold=0, seed=0, out=folder, init=init
    ).model
    moved = changed(model, init)
    assert {name.split(".")[0] for name in moved} == WANTED[mode]
    if mode in ("lora", "ia3"):
        matrices = ("qkv", "out", "expand", "contract") if mode == "lora" else ("qkv", "contract")
        assert {tuple(name.split(".")[-2:]) for name in moved} == {(m, "weight") for m in matrices}
    again = load_model(folder)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    kept = sum(value.numel() for value in load_file(folder / "model.safetensors").values())
    everything = sum(value.numel() for value in model.state_dict().values())
    encoder = sum(value.numel() for value in model.encoder.state_dict().values())
    assert (kept == everything) if mode == "full" else (kept <= everything - encoder / 2)


@torch.no_grad()
def test_a_probe_is_linear(tiny_bundle, tmp_path, init):
    probe = settings("probe", "finetune.kernel=true")
    model = finetune_fold(tiny_bundle, probe, fold=0, seed=0, out=tmp_path / "a", init=init).model
    assert model.kernel.n_support == 0
    assert len(model.graph.layers) == 0
    vectors = torch.randn(len(tiny_bundle.genes), len(model.readout.centre))
    values = [
        predict_expression(model, tiny_bundle, vectors=vectors * share).to_numpy()
        for share in (0, 1, 2)
    ]
    assert abs(values[1] - values[0]).max() > 0.1
    assert values[2] - values[1] == pytest.approx(values[1] - values[0], rel=1e-3, abs=1e-3)


def test_what_does_not_fit_is_refused(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match="encoder is frozen"):
        config("finetune.mode=head", "finetune.epochs=1")
    with pytest.raises(InputError, match="at least one pass"):
        config("finetune.mode=lora", "finetune.epochs=0")
    with pytest.raises(InputError, match="without a pre-trained encoder"):
        finetune(tiny_bundle, settings("lora", "finetune.delta=true"), tmp_path / "a")
