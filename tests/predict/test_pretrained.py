"""What is said of a pre-trained encoder, and which one is refused."""

import json

import pytest

from genesplice.errors import InputError
from genesplice.predict.pretrained import check_views_held_out, encoder_sentence


def encoder(folder, holdout_fold=0, views=("strand",), weight=0.1):
    settings = {"holdout_fold": holdout_fold, "views": views, "contrastive_weight": weight}
    (folder / "run.json").write_text(json.dumps({"pretrain": settings}))
    return folder


def test_which_held_out_folds_an_encoder_has_read(tmp_path):
    assert "random weights" in encoder_sentence(tmp_path, [0])
    init = encoder(tmp_path)
    assert "without the sequence of fold 0" in encoder_sentence(init, [0])
    told = encoder_sentence(init, [0, 1, 2])
    assert "of fold 0 it has read nothing" in told
    assert "folds 1, 2" in told
    assert "in fold 3." in encoder_sentence(init, [3])
    assert "folds 0, 1" in encoder_sentence(encoder(tmp_path, holdout_fold=None), [0, 1])


def test_held_out_genes_must_not_have_been_told_their_operon(tmp_path):
    init = encoder(tmp_path, views=("strand", "regulon"))
    check_views_held_out(init, [0])
    with pytest.raises(InputError, match=r"views of regulon for held-out fold 1"):
        check_views_held_out(init, [0, 1])
    check_views_held_out(encoder(tmp_path, views=("operon",), weight=0.0), [1])
    check_views_held_out(encoder(tmp_path), [0, 1, 2])
    check_views_held_out(None, [0, 1])
