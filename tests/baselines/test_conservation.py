"""Conservation of each gene, against a loop over its bases."""

import dataclasses

import pytest
from tiny_genomes import make_relatives

from genesplice.baselines.features import CONSERVED_BP, conservation_features
from genesplice.data.bundle import Bundle
from genesplice.data.relatives import GAP


@pytest.mark.parametrize("is_summary", [False, True])
def test_shares_are_those_of_a_loop_over_bases(tiny_bundle: Bundle, is_summary: bool) -> None:
    relatives = make_relatives(tiny_bundle, 6)
    given = relatives._replace(bases=relatives.bases[:0]) if is_summary else relatives
    bundle = dataclasses.replace(tiny_bundle, relatives=given)
    table = conservation_features(bundle)
    assert list(table.index) == list(bundle.observed.index)
    genome = bundle.genome
    genes = bundle.genes.set_index("gene_id")
    rows = {"r1": [1], "near": [0, 1], "": range(6)}
    for gene_id in [*table.index[:5], *table.index[-5:]]:
        gene = genes.loc[gene_id]
        contig = genome.contig(gene.contig)
        step = 1 if gene.strand == "+" else -1
        inside = list(range(gene.start, gene.end))[::step]
        assert len(gene.exons) in (0, 2)
        regions = {f"codon_{k + 1}": inside[k::3] if len(gene.exons) else inside for k in range(3)}
        regions["upstream"] = [gene.tss - step * d for d in range(1, CONSERVED_BP + 1)]
        for name, members in rows.items():
            if name == ("r1" if is_summary else "near"):
                continue
            for region, positions in regions.items():
                there = equal = n_bases = 0
                for position in positions:
                    if not contig.is_circular and not 0 <= position < contig.length:
                        continue
                    n_bases += 1
                    at = contig.offset + position % contig.length
                    for row in members:
                        there += relatives.bases[row, at] < GAP
                        equal += relatives.bases[row, at] == genome.tokens[at]
                suffix = f"{region}:{name}" if name else region
                aligned, identity = (
                    table.loc[gene_id, f"{w}:{suffix}"] for w in ("aligned", "identity")
                )
                assert aligned == pytest.approx(there / n_bases / len(members))
                assert identity == pytest.approx(equal / there if there else 0)


def test_a_relative_may_be_called_like_a_group(tiny_bundle: Bundle) -> None:
    relatives = make_relatives(tiny_bundle, 6)
    names = ["far", "near", *relatives.table["name"][2:]]
    called = relatives._replace(table=relatives.table.assign(name=names))
    one, other = (
        conservation_features(dataclasses.replace(tiny_bundle, relatives=each))
        for each in (relatives, called)
    )
    assert other.columns[0] == "aligned:codon_1:far"
    assert (one.to_numpy() == other.to_numpy()).all()


def test_without_relatives_there_are_no_columns(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.relatives is None
    assert conservation_features(tiny_bundle).shape == (len(tiny_bundle.observed), 0)
