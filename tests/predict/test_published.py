"""Weights that come with the package: whole, small, and what their card says of them."""

import json
import re

import numpy as np
import pytest
import torch
from tiny_runs import random_tokens

import genesplice as gs
from genesplice.model.sequence import MASK_TOKEN
from genesplice.predict import PUBLISHED, find_pretrained
from genesplice.predict.models import open_models
from genesplice.predict.pretrained import load_pretrained
from genesplice.results import read_metrics
from genesplice.runtime import file_sha256

FOLDERS = sorted(path for path in PUBLISHED.iterdir() if path.is_dir())


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def published(request):
    return request.param


def test_the_folder_is_small_and_has_all_that_a_run_has(published):
    names = {path.name for path in published.iterdir()}
    record = {"genome.json", "inputs.json", "run.json", "metrics.json"}
    assert names == {"README.md", "model.safetensors", *record}
    assert sum(path.stat().st_size for path in published.iterdir()) < 20e6


def test_the_card_says_what_was_measured(published):
    card = (published / "README.md").read_text()
    assert file_sha256(published / "model.safetensors") in card
    steps = json.loads((published / "run.json").read_text())["pretrain"]["steps"]
    assert f"{steps:,} steps" in card
    measured = {(row.metric, row.model): row for row in read_metrics(published / "metrics.json")}
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", card, re.M)
    assert len(rows) >= 5
    for metric, model, *numbers in rows:
        row = measured[metric, model]
        assert [f"{value:.3f}" for value in (row.value, row.ci_low, row.ci_high)] == numbers


def test_it_is_found_by_name_and_a_folder_of_the_name_comes_first(published, tmp_path, monkeypatch):
    assert find_pretrained(published.name) == published
    assert open_models(published.name).masked_path == published
    monkeypatch.chdir(tmp_path)
    (tmp_path / published.name).mkdir()
    assert find_pretrained(published.name).resolve() == tmp_path / published.name


def test_it_has_learned_codons_of_its_genome(published):
    """Without any relatives: 30 codons of rpsA, each with its third base hidden."""
    # MTESFAQLFEESLKEIETRPGSIVRGVVVAI in MG1655
    bases = (
        "ATGACTGAATCTTTTGCTCAACTCTTTGAAGAGTCCTTAAAAGAAATC"
        "GAAACCCGCCCGGGTTCTATCGTTCGTGGCGTTGTTGTTGCTATC"
    )
    gene = torch.tensor(["ACGT".index(base) for base in bases], dtype=torch.uint8)
    tokens = random_tokens(1, 1024, seed=5)
    tokens[0, 400 : 400 + len(gene)] = gene
    model = load_pretrained(published)
    right = []
    for first in (0, 1, 2):
        hidden = tokens.clone()
        at = torch.arange(400 + 2 + 3 * first, 400 + len(gene), 9)
        hidden[0, at] = MASK_TOKEN
        with torch.no_grad():
            guess = model.base_logits(model.encode(hidden))[0, at].log_softmax(-1)
        right.append(guess[torch.arange(len(at)), tokens[0, at].long()])
    bits = -torch.cat(right).mean().item() / np.log(2)
    assert bits < 1.9


def test_the_genome_they_were_made_from_has_them(ecoli):
    folder = gs.published_encoder(ecoli)
    assert folder is not None
    rows = gs.published_metrics(ecoli)
    wide = gs.pivot_metrics(rows, "bits_per_base")
    assert list(wide) == [folder.name, f"{folder.name} alone"]
    assert (wide[folder.name] < wide[f"{folder.name} alone"]).all()
    # As a table with those of a run, whose rows have a fold too.
    own = [row._replace(model="genesplice") for row in rows]
    assert set(gs.pivot_metrics([*own, *rows], "probe_")) == {"genesplice", folder.name}


def test_another_genome_has_no_published_weights(tiny_bundle):
    assert gs.published_encoder(tiny_bundle) is None
    assert gs.published_metrics(tiny_bundle) == []
