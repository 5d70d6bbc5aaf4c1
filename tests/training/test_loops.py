"""What a run trains on."""

import pytest
import torch

from genesplice.training.loops import choose_accelerator


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
