"""A VCF of random substitutions holds what it promises; vectors at hand change nothing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny_models import make_tiny

from genesplice.errors import InputError
from genesplice.predict.expression import encode_genes
from genesplice.variants.annotate import annotate_vcf
from genesplice.variants.checks import ContigNames, check_record, survey
from genesplice.variants.models import Models
from genesplice.variants.random_vcf import make_snv_vcf
from genesplice.variants.scan import Region
from genesplice.variants.vcf import check_header, read_records


def test_places_differ_are_sorted_and_have_their_own_base(tiny_bundle, tmp_path):
    path, names = tmp_path / "x.vcf", ContigNames(tiny_bundle.genome)
    make_snv_vcf(path, tiny_bundle.genome, Region("chr", 500, 560), count=60)
    check_header(path)
    records = list(read_records(path))
    assert [record.position for record in records] == list(range(500, 560))
    assert survey(records, names).n_mismatches == 0
    for record in records:
        (found,) = check_record(record, names)
        assert found.kind == "snv"
    make_snv_vcf(path, tiny_bundle.genome, Region("chr", 500, 560), count=20, seed=1)
    fewer = [record.position for record in read_records(path)]
    assert len(set(fewer)) == 20
    assert fewer == sorted(fewer)


def test_every_other_base_comes_up(tiny_bundle, tmp_path):
    path = tmp_path / "x.vcf"
    make_snv_vcf(path, tiny_bundle.genome, Region("chr", 0, 3000), count=3000)
    pairs = pd.Series([record.ref + record.alts[0] for record in read_records(path)])
    counts = pairs.value_counts()
    assert len(counts) == 12
    assert counts.min() > 0.6 * counts.max()


def test_too_few_bases_are_refused(tiny_bundle, tmp_path):
    tokens = np.array(tiny_bundle.genome.tokens)
    tokens[10:20] = 4
    genome = dataclasses.replace(tiny_bundle.genome, tokens=tokens)
    with pytest.raises(InputError, match="5 known bases"):
        make_snv_vcf(tmp_path / "x.vcf", genome, Region("chr", 5, 20), count=6)
    assert list(tmp_path.iterdir()) == []


def test_vectors_at_hand_change_nothing(tiny_bundle, tmp_path):
    model = make_tiny(tiny_bundle)
    models = Models(None, None, (model,), (tmp_path,))
    make_snv_vcf(tmp_path / "x.vcf", tiny_bundle.genome, Region("chr", 500, 5000), count=5)
    tables = []
    for i, vectors in enumerate((None, [encode_genes(model, tiny_bundle)])):
        out = tmp_path / f"{i}.vcf"
        annotate_vcf(models, tiny_bundle, tmp_path / "x.vcf", out, vectors=vectors)
        tables.append(pd.read_parquet(out.with_name(f"{i}.genes.parquet")))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["dlevel"].abs().max() > 0
