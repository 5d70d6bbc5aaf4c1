"""Distance dependence stays within a model's context length."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import genesplice as gs
from genesplice.context.perturbation import (
    distance_bands,
    distances,
    dose_response,
    field_bp,
    kept_share,
    mass_by_distance,
    share_without_sequence,
)
from genesplice.errors import InputError
from genesplice.predict.gene_output import Explainer
from genesplice.training.finetuning import make_model

CONTEXT_BP = 1024
EDGES = distance_bands(8192)


@pytest.fixture(scope="module")
def explainer(tiny_bundle):
    settings = [
        "model.width=16", "model.heads=2", "model.base_width=0", "model.bin_layers=0",
        "model.decoder_layers=0", "model.graph_layers=0", f"model.context_bp={CONTEXT_BP}",
    ]  # fmt: skip
    model = make_model(tiny_bundle, gs.override(gs.load_preset("quick"), settings))
    return Explainer(model, tiny_bundle, window_bp=8192)


@pytest.fixture(scope="module")
def genes(tiny_bundle):
    return tiny_bundle.genes["gene_id"].tolist()[3:7]


def test_bands_double():
    assert distance_bands(2048) == [0, 128, 256, 512, 1024]
    assert EDGES[-1] == 4096


@given(st.integers(-5, 45), st.integers(0, 60))
def test_distances_against_a_loop(start, length):
    found = distances(40, start, start + length + 1)
    nearest = [min(abs(place - base) for base in range(start, start + length + 1))
               for place in range(40)]  # fmt: skip
    assert found.tolist() == nearest


def test_nothing_changes_beyond_what_the_dial_lets_in(explainer, genes):
    # The readout looks 512 bp before the start, and from there half a context further.
    doses = dose_response(explainer, genes, EDGES, n_shuffles=1)
    assert len(doses) == len(genes) * len(EDGES)
    far = doses[doses["distance_bp"] >= 512 + CONTEXT_BP // 2 + 32]
    np.testing.assert_allclose(far["level"], far["full"], atol=1e-5)
    near = doses[doses["distance_bp"] == 0]
    assert (near["level"] - near["full"]).abs().max() > 1e-6


def test_mass_stays_within_the_dial_and_sums_to_one(explainer, genes):
    mass = mass_by_distance(explainer, genes, EDGES)
    assert mass["high_bp"].tolist() == EDGES
    for column in ("gradient", "perturbation"):
        assert mass[column].sum() == pytest.approx(1, abs=1e-6)
        beyond = mass["low_bp"] >= 512 + CONTEXT_BP // 2 + 32
        assert mass.loc[beyond, column].sum() < 1e-4
        assert field_bp(mass, column) <= 2048


def test_a_model_without_eyes_keeps_everything_without_sequence(explainer, genes, tiny_bundle):
    assert share_without_sequence(explainer, genes) < 0.99
    model = make_model(tiny_bundle, gs.override(gs.load_preset("quick"), ["model.base_width=0"]))
    for weight in model.readout.parameters():
        weight.data.zero_()
    # Every gene has its own level, by its graph node alone.
    blind = Explainer(model.eval(), tiny_bundle, window_bp=2048)
    assert share_without_sequence(blind, genes) > 0.9999
    with pytest.raises(InputError, match="0 genes"):
        share_without_sequence(blind, [])


def test_kept_share_in_loops():
    generator = np.random.default_rng(0)
    full = generator.normal(size=5)
    rows = [(f"g{i}", d, full[i] + d * 0.1, full[i]) for d in (0, 1, 2) for i in range(5)]
    shares = kept_share(pd.DataFrame(rows, columns=["gene_id", "distance_bp", "level", "full"]))
    for distance, share in shares.itertuples(index=False):
        expected = 1 - (0.1 * distance) ** 2 / ((full - full.mean()) ** 2).mean()
        assert share == pytest.approx(max(expected, 0))


def test_a_constant_model_has_nothing_to_lose():
    rows = [("a", 0, 1.0, 1.0), ("b", 0, 1.0, 1.0)]
    shares = kept_share(pd.DataFrame(rows, columns=["gene_id", "distance_bp", "level", "full"]))
    assert shares["share"].tolist() == [1.0]


def test_field_is_the_first_band_that_holds_enough():
    mass = pd.DataFrame({"high_bp": [0, 10, 20, 40], "gradient": [0.5, 0.3, 0.1, 0.1]})
    assert field_bp(mass, "gradient", 0.5) == 0
    assert field_bp(mass, "gradient", 0.9) == 20
    assert field_bp(mass, "gradient", 1.0) == 40


def test_bad_requests_are_refused(explainer, genes):
    with pytest.raises(InputError, match="0 genes, "):
        dose_response(explainer, [], EDGES)
    with pytest.raises(InputError, match="edges from 0 upwards"):
        mass_by_distance(explainer, genes, [0, 200, 100])
