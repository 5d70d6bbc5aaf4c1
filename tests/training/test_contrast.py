"""Which pairs show the same, and what is kept of earlier steps."""

import numpy as np
import pytest
import torch
from tiny_runs import config, make_source

from genesplice.model.genesplice import PretrainingModel
from genesplice.training.batches import (
    Keys,
    Queue,
    StepMaker,
    are_related,
    interval_summaries,
    retrieval_at_1,
)
from genesplice.training.pretraining import PretrainingModule, pretrain

pytestmark = pytest.mark.slow


def keys(spans, groups=None):
    groups = [[]] * len(spans) if groups is None else groups
    return Keys(
        torch.tensor(spans, dtype=torch.int64).reshape(len(spans), -1, 2),
        torch.tensor(groups, dtype=torch.int64).reshape(len(spans), -1),
    )


def random_keys(generator, count):
    start = generator.integers(0, 300, (count, 2))
    spans = np.stack([start, start + generator.integers(1, 40, (count, 2))], -1)
    groups = generator.integers(-1, 12, (count, 3))
    return keys(spans.tolist(), groups.tolist())


def test_what_shares_a_base_or_a_group_is_related():
    generator = np.random.default_rng(0)
    one, other = random_keys(generator, 30), random_keys(generator, 40)
    found, counts = are_related(one, other), {"base": 0, "group": 0, "none": 0}
    for i in range(30):
        for j in range(40):
            bases = [set(range(a, b)) for a, b in one.spans[i].tolist()]
            others = [set(range(a, b)) for a, b in other.spans[j].tolist()]
            shares_base = any(a & b for a in bases for b in others)
            shares_group = {*one.groups[i].tolist()} & {*other.groups[j].tolist()} - {-1}
            assert bool(found[i, j]) == (shares_base or bool(shares_group))
            counts["base" if shares_base else "group" if shares_group else "none"] += 1
    assert min(counts.values()) > 50


def test_neighbouring_intervals_are_not_related():
    touching = keys([[0, 1024], [1024, 2048], [2047, 3071]])
    expected = [[True, False, False], [False, True, True], [False, True, True]]
    assert are_related(touching, touching).tolist() == expected


def test_intervals_are_cut_out_of_their_rows():
    summaries = torch.arange(2 * 16 * 3.0).reshape(2, 16, 3)
    is_real = summaries[..., 0] != 30
    places = torch.tensor([[1, 8], [0, 0], [0, 3]])
    found, real = interval_summaries(summaries, is_real, places, 8)
    for pair, (row, at) in enumerate(places.tolist()):
        assert torch.equal(found[pair], summaries[row, at : at + 8])
        assert torch.equal(real[pair], is_real[row, at : at + 8])


def test_the_queue_keeps_the_latest_pairs():
    queue, made = Queue(5), []
    for step in range(4):
        vector = torch.full((2, 3), float(step), requires_grad=True) + torch.tensor([[0.0], [0.5]])
        queue.add("strand", vector, -vector, keys([[step, step + 1], [step, step + 2]]))
        made += [step, step + 0.5]
    one, two, shown = queue.get("strand", torch.device("cpu"))
    assert one[:, 0].tolist() == made[-5:]
    assert torch.equal(two, -one)
    assert shown.spans[:, 0].tolist() == [[1, 3], [2, 3], [2, 4], [3, 4], [3, 5]]
    assert not one.requires_grad
    assert queue.get("gene", torch.device("cpu")) is None
    nothing = Queue(0)
    nothing.add("strand", one, two, shown)
    assert nothing.get("strand", torch.device("cpu")) is None


def test_related_pairs_do_not_spoil_retrieval():
    one = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    two = torch.tensor([[0.9, 0.1], [1.0, 0.0], [0.0, 1.0]])
    alone = torch.eye(3, dtype=torch.bool)
    assert float(retrieval_at_1(one, two, alone)) == pytest.approx(2 / 3)
    related = alone.clone()
    related[0, 1] = related[1, 0] = True
    assert float(retrieval_at_1(one, two, related)) == 1


# --- the step ---


def make_module(*more):
    torch.manual_seed(0)
    settings = config("model.dropout=0", *more)
    model = PretrainingModel(settings.model, settings.pretrain.contrastive_width)
    module = PretrainingModule(model, settings)
    return module, StepMaker(make_source(), settings)


class Counting(torch.nn.Module):
    """Counts the bases that go through an encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.bases = encoder, 0
        self.base_width = encoder.base_width

    def forward(self, tokens, **more):
        self.bases += tokens.numel()
        return self.encoder(tokens, **more)


@pytest.mark.parametrize("weight", [0, 0.1])
def test_what_is_not_contrasted_is_encoded_once(weight):
    module, maker = make_module(f"pretrain.contrastive_weight={weight}")
    module.model.encoder = Counting(module.model.encoder)
    module.queue.size = 0
    batch = maker(0)
    parts = [module.bits(*_encoded(module, batch))]
    assert (
        module.model.encoder.bases
        == maker.config.pretrain.mean_batch_bp
        == (2 if weight else 1) * 2 * 2048
    )
    assert parts[0].item() > 1
    heads = [w.requires_grad for w in module.model.contrastive.parameters()]
    assert set(heads) == {bool(weight)}


def _encoded(module, batch):
    rows = batch.rows[0]
    return module.model.encode(rows.tokens.masked_fill(rows.is_target, 5)), rows, batch


def test_the_bits_are_the_mean_over_all_targets_whatever_the_parts():
    module, maker = make_module("pretrain.contrastive_weight=0", "pretrain.batch_windows=4")
    encoded, rows, batch = _encoded(module, maker(0))
    logits = module.model.base_logits(encoded)
    expected = torch.nn.functional.cross_entropy(
        logits[rows.is_target], rows.tokens[rows.is_target].long()
    ) / np.log(2)
    assert module.bits(encoded, rows, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    halves, settings = [], ("pretrain.contrastive_weight=0", "pretrain.accumulate=2")
    _, divided = make_module(*settings)
    for number in (0, 1):
        halves.append(module.bits(*_encoded(module, divided(number))).item())
    assert sum(halves) == pytest.approx(expected.item(), rel=1e-5)
    assert halves[0] != pytest.approx(halves[1], rel=1e-6)


def test_every_view_learns_and_is_logged(tiny_bundle, tmp_path):
    settings = config(
        "pretrain.views=strand,neighbour,gene,regulon", "pretrain.view_weights=1,0.5,0.5,2",
        "pretrain.accumulate=2", "pretrain.view_genes=4", "pretrain.steps=3",
        "pretrain.masks=single,span,bin",
    )  # fmt: skip
    table = pretrain(tiny_bundle, settings, tmp_path / "out").history
    table = table.pivot(index="step", columns="metric", values="value")
    assert table.index.tolist() == [0, 1, 2]
    weights = {"strand": 1, "neighbour": 0.5, "gene": 0.5, "regulon": 2}
    together = sum(weight * table[f"info_nce_{view}"] for view, weight in weights.items())
    np.testing.assert_allclose(together, table["info_nce"], rtol=1e-5)
    shares = [table[f"retrieval_at_1_{view}"] for view in weights]
    np.testing.assert_allclose(sum(shares) / 4, table["retrieval_at_1"], rtol=1e-5)
    assert table["bits_per_base"].between(1, 4).all()
