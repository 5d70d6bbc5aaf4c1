"""Tracks that a run left: around genes, round a circle or to its ends."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from genesplice.data.genome import Contig, Genome
from genesplice.data.tracks import BIN_BP, Tracks
from genesplice.errors import InputError
from genesplice.predict.models import track_loci

REACH = 2000


@pytest.fixture(params=[True, False], ids=["circular", "linear"])
def with_tracks(request, tiny_bundle, tmp_path):
    """The tiny genome less its last bases, a track of two strands, and what a run left of it."""
    length, rng = tiny_bundle.genome.length - 50, np.random.default_rng(0)
    contig = Contig("chr", 0, length, request.param)
    genome = Genome(np.array(tiny_bundle.genome.tokens[:length]), (contig,))
    count = -(-length // BIN_BP)
    assert count * BIN_BP > length
    table = pd.DataFrame({"name": "t", "kind": "coverage", "strand": ["+", "-"]})
    values = rng.random((2, 2, count)).astype(np.float32)
    values[1, :, : count // 2] = np.nan
    for name, one in zip(("measured", "predicted"), values, strict=True):
        np.save(tmp_path / f"{name}.npy", one)
    bundle = dataclasses.replace(tiny_bundle, genome=genome, tracks=Tracks(values[0], table))
    return bundle, tmp_path, values


def test_bins_and_genes_around_a_gene_are_those_of_the_genome(with_tracks):
    bundle, folder, values = with_tracks
    contig, genes = bundle.genome.contigs[0], bundle.genes.set_index("gene_id")
    chosen = [genes["tss"].idxmin(), genes["tss"].idxmax(), genes.index[20]]
    bins, around = track_loci(bundle, folder, chosen, reach_bp=REACH)
    assert list(bins["locus"].unique()) == chosen
    for locus in chosen:
        tss, mine = genes["tss"][locus], bins[bins["locus"] == locus]
        assert sorted(mine["strand"].unique()) == ["+", "-"]
        seen = set()
        for row in mine.itertuples():
            at = tss + row.start
            if contig.is_circular:
                at %= contig.length
            assert at % BIN_BP == 0
            track = "+-".index(row.strand)
            np.testing.assert_array_equal(
                [row.measured, row.predicted], values[:, track, at // BIN_BP]
            )
            seen |= {(row.strand, row.start + i) for i in range(BIN_BP)}
        near = range(-REACH, REACH)
        if not contig.is_circular:
            near = [x for x in near if 0 <= tss + x < contig.length]
        assert seen >= {(strand, x) for strand in "+-" for x in near}
        expected = {}
        for gene_id, gene in genes.iterrows():
            turns = (-contig.length, 0, contig.length) if contig.is_circular else (0,)
            for turn in turns:
                low, high = gene.start - tss + turn, gene.end - tss + turn
                if low < REACH and high > -REACH:
                    expected[gene_id] = (low, high, gene.strand)
        found = around[around["locus"] == locus]
        rows = zip(found["start"], found["end"], found["strand"], strict=True)
        assert dict(zip(found["gene_id"], rows, strict=True)) == expected
        assert expected[locus][0 if genes["strand"][locus] == "+" else 1] in (0, 1)


def test_what_is_no_run_of_these_data_is_refused(with_tracks):
    bundle, folder, values = with_tracks
    gene = bundle.genes["gene_id"].iloc[0]
    with pytest.raises(InputError, match="gene 'nobody', expected one of the genes of synthetic"):
        track_loci(bundle, folder, ["nobody"])
    np.save(folder / "measured.npy", values[0, :, 1:])
    with pytest.raises(InputError, match="tracks x bins, expected"):
        track_loci(bundle, folder, [gene])
    (folder / "measured.npy").unlink()
    with pytest.raises(
        InputError, match=r"no measured.npy, expected a folder of finetune --tracks"
    ):
        track_loci(bundle, folder, [gene])
