"""Windows, words and hidden states of a site, one site at a time."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import make_encoder, make_genome

from genesplice.data.features import kmer_features, one_hot_features, site_windows
from genesplice.errors import InputError
from genesplice.predict import pretrained
from genesplice.predict.pretrained import encoder_features, reference_features


def make_sites(*rows):
    return pd.DataFrame(rows, columns=["contig", "position", "strand"])


def test_a_window_has_its_site_in_the_middle_on_its_strand():
    genome = make_genome(200, 100, circular=("c0",))
    sites = make_sites(("c0", 3, "+"), ("c0", 3, "-"), ("c1", 5, "+"), ("c1", 98, "-"))
    found = site_windows(genome, sites, 16, 16)
    complement = np.array([3, 2, 1, 0])
    for row, (contig, position, strand) in enumerate(sites.itertuples(index=False)):
        offset, length = (0, 200) if contig == "c0" else (200, 100)
        for column in range(32):
            step = column - 16
            place = position + (step if strand == "+" else -step)
            if contig == "c1" and not 0 <= place < length:
                assert found[row, column] == 4
                continue
            base = genome.tokens[offset + place % length]
            assert found[row, column] == (base if strand == "+" else complement[base])
    assert (found == 4).any()


@pytest.mark.parametrize("k", [1, 3])
def test_words_are_counted(k):
    windows = np.random.default_rng(0).integers(0, 5, (6, 20)).astype(np.uint8)
    found = kmer_features(windows, k)
    assert found.shape == (6, 4**k)
    for row, window in enumerate(windows):
        expected = np.zeros(4**k)
        for start in range(20 - k + 1):
            word = window[start : start + k]
            if 4 not in word:
                expected[sum(int(b) * 4 ** (k - 1 - i) for i, b in enumerate(word))] += 1
        np.testing.assert_array_equal(found[row], expected)


def test_one_hot_is_one_column_a_base_and_letter():
    found = one_hot_features(np.array([[0, 3, 4]], np.uint8))
    np.testing.assert_array_equal(found, [[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]])


def test_references_see_what_they_say():
    sites = make_sites(("c0", 500, "-"), ("c0", 700, "+"))
    found = reference_features(make_genome(2000), sites)
    assert {name: values.shape for name, values in found.items()} == {
        "kmers": (2, 256), "one_hot": (2, 256)
    }  # fmt: skip
    assert (found["kmers"].sum(axis=1) == 253).all()
    assert (found["one_hot"].sum(axis=1) == 64).all()


@pytest.mark.parametrize("base_width", [0, 4])
def test_hidden_states_are_averaged_near_the_site(tiny_bundle, base_width, monkeypatch):
    encoder = make_encoder(base_width)
    monkeypatch.setattr(pretrained, "BATCH_BP", 1024)
    sites = make_sites(("chr", 5000, "+"), ("chr", 77, "-"), ("chr", 5000, "+"))
    found = encoder_features(encoder, tiny_bundle, sites)
    assert encoder.training
    encoder.eval()
    for row in range(2):
        tokens = site_windows(tiny_bundle.genome, sites[row : row + 1], 512, 512)
        with torch.no_grad():
            output = encoder(torch.from_numpy(tokens), with_bases=base_width > 0)
        bins = output.bins[0].double().numpy()
        expected = [np.mean([bins[i] for i in range(24, 40)], axis=0), bins[32]]
        if base_width:
            bases = output.bases[0].double().numpy()
            expected.append(bases[512])
            for reach in (24, 126):
                for phase in range(3):
                    near = [i for i in range(512 - reach, 512 + reach) if (i - 512) % 3 == phase]
                    expected.append(np.mean([bases[i] for i in near], axis=0))
        np.testing.assert_allclose(found[row], np.concatenate(expected), atol=1e-5)
    np.testing.assert_array_equal(found[2], found[0])


def test_what_cannot_be_read_is_refused(tiny_bundle):
    with pytest.raises(InputError, match="k 9 in windows of 20 bp"):
        kmer_features(np.zeros((1, 20), np.uint8), 9)
    assert encoder_features(make_encoder(4), tiny_bundle, make_sites()).shape == (0, 60)
