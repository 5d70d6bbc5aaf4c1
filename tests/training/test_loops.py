"""What a run trains on."""

import re
import time

import pytest
import torch
from lightning import LightningModule
from torch import nn

from genesplice.config import load_preset
from genesplice.errors import InputError
from genesplice.runtime import is_taken
from genesplice.training import loops
from genesplice.training.loops import begin_run, choose_accelerator


@pytest.mark.parametrize("has_float64", [True, False])
def test_a_gpu_without_float64_is_left_alone(monkeypatch, capsys, has_float64):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    def zeros(*shape, dtype, device):
        assert (dtype, device) == (torch.float64, "mps")
        if not has_float64:
            raise TypeError("the MPS framework doesn't support float64")

    monkeypatch.setattr(torch, "zeros", zeros)
    assert choose_accelerator() == ("auto" if has_float64 else "cpu")
    assert ("no float64" in capsys.readouterr().err) != has_float64


def test_without_such_a_gpu_lightning_chooses(monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_accelerator() == "auto"
    assert not capsys.readouterr().err


class Slow(LightningModule):
    """Half a second a step, and no more to learn than a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        time.sleep(0.5)
        return (self.constant - 1.0).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_progress_says_step_pace_and_minutes(capsys):
    loops.train(Slow(), 3, lambda step: step, [loops.ProgressLines("pretrain", 8192)])
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    found = re.fullmatch(
        r"pretrain: step 3/3, loss 1\.000, (\d+\.\d) kbp/s, 0:00 left", line.strip()
    )
    assert found, line
    assert 1.0 < float(found[1]) <= 16.4  # 8,192 bases in half a second at best


# --- the folder of a run ---


@pytest.mark.parametrize("left", [[], ["inputs.json"], [".inputs.json.partial", ".x.partial"]])
def test_a_run_that_was_killed_before_it_had_begun_is_begun_again(tmp_path, left):
    config, out = load_preset("quick"), tmp_path / "out"
    begin_run(out, config, False, {"genome": "a"})
    (out / "run.json").rename(tmp_path / "run.json")
    (out / "inputs.json").unlink()
    for name in left:
        (out / name).write_text("{")
    assert not is_taken(out)
    begin_run(out, config, True, {"genome": "a"})
    assert (out / "run.json").read_bytes() == (tmp_path / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"other inputs \(genome\)"):
        begin_run(out, config, True, {"genome": "b"})
    with pytest.raises(InputError, match="not empty"):
        begin_run(out, config, False, {"genome": "a"})


def test_a_run_has_begun_when_its_settings_are_there(tmp_path, monkeypatch):
    written: list[str] = []
    monkeypatch.setattr(loops, "write_json", lambda path, value: written.append(path.name))
    begin_run(tmp_path / "out", load_preset("quick"), False, {})
    assert written == ["inputs.json", "run.json"]
