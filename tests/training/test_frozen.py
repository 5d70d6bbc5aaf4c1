"""Frozen encoders read genes in windows of the length that they have learned from."""

import pytest
import torch
from tiny_runs import config

from genesplice.model.genesplice import make_encoder
from genesplice.training.evaluation import _InPieces, read_genes
from genesplice.training.pretraining import begin_model

KMERS = ("model.arch=kmer_tokens", "model.base_width=8")


@torch.no_grad()
@pytest.mark.parametrize("settings", [(), KMERS])
def test_a_window_is_read_as_its_pieces(settings):
    sizes = config(*settings).model
    encoder = make_encoder(sizes).eval()
    tokens = torch.randint(0, 5, (2, 6144), dtype=torch.uint8)
    with_bases = encoder.base_width > 0
    found = _InPieces(sizes, encoder, 2048).eval()(tokens, with_bases=with_bases)
    apart = [encoder(tokens[:, at : at + 2048], with_bases=with_bases) for at in (0, 2048, 4096)]
    for name in ("bins", "summaries", "regions", "is_real", "bases"):
        wanted = [getattr(one, name) for one in apart]
        if wanted[0] is None:
            assert getattr(found, name) is None
        else:
            torch.testing.assert_close(getattr(found, name), torch.cat(wanted, 1))


def test_no_piece_is_longer_than_what_pretraining_read(tiny_bundle, monkeypatch):
    settings, lengths = config(*KMERS), set()
    model = begin_model(settings)
    encode = model.encoder.encode

    def watched(inputs, is_real, **rest):
        lengths.add(inputs.shape[1])
        return encode(inputs, is_real, **rest)

    monkeypatch.setattr(model.encoder, "encode", watched)
    table = read_genes(model, tiny_bundle, settings)
    assert table.index.equals(tiny_bundle.observed.index)
    assert max(lengths) <= settings.pretrain.window_bp
