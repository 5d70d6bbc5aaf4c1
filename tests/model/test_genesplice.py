"""Invariants of the whole model, and its weights on disk."""

import torch

from genesplice.config import ModelConfig
from genesplice.data.windows import make_graph
from genesplice.model.genesplice import GeneSplice, reverse_complement

SMALL = ModelConfig(width=16, heads=2, bin_window=4, summary_window=2, base_width=4, dropout=0.0)


def make(config=SMALL, **nodes) -> GeneSplice:
    torch.manual_seed(0)
    model = GeneSplice(config, ["x", "y", "z"], **nodes).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def window(length=8192, seed=0):
    """Tokens, phase and four genes: both strands, one reaching outside on each side."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 4, (1, length), generator=generator, dtype=torch.uint8)
    phase = torch.randint(0, 5, (1, 2, length), generator=generator, dtype=torch.uint8)
    row = torch.zeros(4, dtype=torch.long)
    start = torch.tensor([-300, 1200, 3001, 7900])
    end = torch.tensor([400, 2300, 4444, 9000])
    strand = torch.tensor([1, -1, 1, -1], dtype=torch.int8)
    return tokens, phase, row, start, end, strand


@torch.no_grad()
def test_the_other_strand_gives_the_same_genes():
    model = make()
    tokens, phase, row, start, end, strand = window()
    length = tokens.shape[1]
    mirrored = model.gene_features(
        reverse_complement(tokens),
        phase.flip(1).flip(2),
        row,
        length - end,
        length - start,
        -strand,
    )
    vectors = model.gene_features(tokens, phase, row, start, end, strand)
    torch.testing.assert_close(mirrored, vectors, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_strand_matters():
    model = make()
    tokens, phase, row, start, end, strand = window()
    here = model.gene_features(tokens, phase, row, start, end, strand)
    there = model.gene_features(tokens, phase, row, start, end, -strand)
    assert float((here - there).abs().max()) > 0.1


@torch.no_grad()
def test_in_half_precision_genes_are_nearly_the_same():
    model, arguments = make(), window()
    whole = model.gene_features(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.gene_features(*arguments)
    assert half.dtype == torch.float32
    assert float((half - whole).norm() / whole.norm()) < 0.1


@torch.no_grad()
def test_a_gene_is_the_same_from_two_windows():
    config = ModelConfig(
        width=16,
        heads=2,
        bin_window=4,
        summary_window=2,
        base_width=4,
        dropout=0.0,
        context_bp=2048,
    )
    model = make(config)
    tokens, phase, *_ = window(16384)
    one = torch.zeros(1, dtype=torch.long)
    for strand in (1, -1):
        place = torch.tensor([strand], dtype=torch.int8)
        vectors = [
            model.gene_features(
                tokens[:, low : low + 12288],
                phase[:, :, low : low + 12288],
                one,
                torch.tensor([6000 - low]),
                torch.tensor([7000 - low]),
                place,
            )
            for low in (0, 2048)
        ]
        torch.testing.assert_close(vectors[0], vectors[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_other_windows_of_the_batch_do_not_matter():
    model = make()
    first, second = window(seed=0), window(seed=1)
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    both[2] = torch.cat([first[2], second[2] + 1])
    together = model.gene_features(*both)
    torch.testing.assert_close(together[:4], model.gene_features(*first), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[4:], model.gene_features(*second), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_weights_on_disk(tiny_bundle, tmp_path):
    parts = tiny_bundle.genes, tiny_bundle.network, tiny_bundle.gene_sets
    graph = make_graph(*parts)
    regulators = sorted(set(tiny_bundle.network["source"]))
    model = make(regulators=regulators, pathways=graph["pathway"].ids)
    model.expression_head.fit(torch.randn(20, 3))
    model.save_pretrained(tmp_path / "model")
    again = GeneSplice.from_pretrained(tmp_path / "model").eval()
    vectors = torch.randn(len(tiny_bundle.genes), len(model.readout.centre))
    one, two = (m(vectors, m.graph.bind(graph)) for m in (model, again))
    assert torch.equal(one.level, two.level)
    assert torch.equal(one.residual, two.residual)
    assert again.config == model.config
    assert again.conditions == model.conditions
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
