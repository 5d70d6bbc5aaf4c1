"""Losses against the papers' formulas, written as loops in float64."""

import math

import pytest
import torch

from genesplice.model.heads import ExpressionHead, Prediction, info_nce, masked_base_loss
from genesplice.model.sequence import MASK_TOKEN, N_TOKEN


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_tokens(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, shape, generator=generator, dtype=torch.uint8)


# --- masked bases ---


def masked_by_loops(logits, tokens, is_target) -> float:
    bits = []
    for row in range(tokens.shape[0]):
        for place in range(tokens.shape[1]):
            base = int(tokens[row, place])
            if bool(is_target[row, place]) and base < 4:
                weights = [math.exp(float(value)) for value in logits[row, place]]
                bits.append(-math.log2(weights[base] / math.fsum(weights)))
    return math.fsum(bits) / len(bits)


def test_masked_bases_are_scored_in_bits():
    logits, tokens = random(3, 40, 4) * 2, random_tokens(3, 40)
    tokens[0, :10] = N_TOKEN
    is_target = random(3, 40, seed=1) > 0.3
    found = float(masked_base_loss(logits, tokens, is_target))
    assert found == pytest.approx(masked_by_loops(logits, tokens, is_target), abs=1e-12)


def test_a_uniform_guess_has_two_bits():
    tokens = random_tokens(2, 50)
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    for level in (0.0, 7.0):
        logits = torch.full((2, 50, 4), level)
        assert float(masked_base_loss(logits, tokens, everywhere)) == pytest.approx(2, abs=1e-6)


def test_a_certain_and_right_guess_has_none():
    tokens = random_tokens(2, 50)
    logits = torch.nn.functional.one_hot(tokens.long(), 4) * 1000.0
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    assert float(masked_base_loss(logits, tokens, everywhere)) == 0
    assert float(masked_base_loss(-logits, tokens, everywhere)) > 1000


@pytest.mark.parametrize("token", [N_TOKEN, MASK_TOKEN])
def test_an_unknown_base_is_never_a_target(token):
    logits, tokens = random(1, 20, 4).requires_grad_(), random_tokens(1, 20)
    is_target = torch.zeros(1, 20, dtype=torch.bool)
    is_target[0, :5] = True
    expected = masked_base_loss(logits, tokens, is_target)
    tokens[0, 10:] = token
    is_target[0, 10:] = True
    found = masked_base_loss(logits, tokens, is_target)
    assert torch.equal(found, expected)
    found.backward()
    assert not logits.grad[0, 5:].any()


def test_without_a_target_the_loss_is_zero_and_can_go_backward():
    logits = random(1, 8, 4).requires_grad_()
    loss = masked_base_loss(logits, random_tokens(1, 8), torch.zeros(1, 8, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_weights_count_and_parts_add_up():
    logits, tokens = random(4, 30, 4), random_tokens(4, 30)
    tokens[1, :7] = N_TOKEN
    is_target, weight = random(4, 30, seed=1) > 0, random(4, 30, seed=2).abs()
    weight[2] = 0
    bits = total = 0.0
    for row in range(4):
        for place in range(30):
            if bool(is_target[row, place]) and int(tokens[row, place]) < 4:
                one = [(row, place)]
                here = masked_by_loops(
                    logits[row : row + 1, place : place + 1], tokens[row : row + 1, [place]],
                    torch.ones(len(one), 1, dtype=torch.bool),
                )  # fmt: skip
                bits += float(weight[row, place]) * here
                total += float(weight[row, place])
    found = masked_base_loss(logits, tokens, is_target, weight)
    assert float(found) == pytest.approx(bits / total, abs=1e-12)
    parts = [
        masked_base_loss(logits[rows], tokens[rows], is_target[rows], weight[rows], total)
        for rows in (slice(0, 1), slice(1, 4))
    ]
    assert float(sum(parts)) == pytest.approx(bits / total, abs=1e-12)
    nothing = masked_base_loss(logits, tokens, is_target, torch.zeros_like(weight))
    assert float(nothing) == 0


# --- contrast ---


def nce_by_loops(one, other, temperature) -> float:
    """Equation 4 in both directions: -log exp(s_ii) / sum_j exp(s_ij), averaged."""
    pairs = len(one)

    def score(i, j):
        return math.fsum(float(a) * float(b) for a, b in zip(one[i], other[j], strict=True))

    losses = []
    for i in range(pairs):
        here = math.exp(score(i, i) / temperature)
        losses.append(-math.log(here / sum(math.exp(score(i, j) / temperature)
                                           for j in range(pairs))))  # fmt: skip
        losses.append(-math.log(here / sum(math.exp(score(j, i) / temperature)
                                           for j in range(pairs))))  # fmt: skip
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_info_nce_is_equation_four_both_ways(pairs, temperature):
    one = torch.nn.functional.normalize(random(pairs, 5), dim=1)
    other = torch.nn.functional.normalize(random(pairs, 5, seed=1), dim=1)
    found = float(info_nce(one, other, temperature))
    assert found == pytest.approx(nce_by_loops(one, other, temperature), abs=1e-12)
    assert found == pytest.approx(float(info_nce(other, one, temperature)), abs=1e-12)


def test_vectors_that_say_nothing_have_the_log_of_their_number():
    same = torch.ones(12, 4, dtype=torch.float64) / 2
    assert float(info_nce(same, same, 0.1)) == pytest.approx(math.log(12), abs=1e-12)


def test_vectors_that_find_each_other_have_nothing_to_lose():
    apart = torch.eye(6, dtype=torch.float64)
    assert float(info_nce(apart, apart, 0.01)) < 1e-12
    assert float(info_nce(apart, apart.roll(1, 0), 0.01)) > 50


def test_the_order_of_the_pairs_does_not_matter():
    one, other, order = random(6, 3), random(6, 3, seed=1), torch.tensor([2, 0, 5, 1, 4, 3])
    expected = float(info_nce(one, other, 0.3))
    assert float(info_nce(one[order], other[order], 0.3)) == pytest.approx(expected, abs=1e-12)
    assert abs(float(info_nce(one, other[order], 0.3)) - expected) > 0.01


def masked_nce_by_loops(
    one, other, temperature, related, earlier_one, earlier_other, related_earlier
):
    """As above; candidates are all that is not related, and the earlier ones of that side."""

    def score(a, b):
        return math.exp(
            math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / temperature
        )

    losses = []
    for i in range(len(one)):
        for query, side, earlier in ((one, other, earlier_other), (other, one, earlier_one)):
            weights = [
                score(query[i], side[j]) for j in range(len(one)) if j == i or not related[i][j]
            ]
            weights += [
                score(query[i], earlier[j])
                for j in range(len(earlier))
                if not related_earlier[i][j]
            ]
            losses.append(-math.log(score(query[i], side[i]) / math.fsum(weights)))
    return math.fsum(losses) / len(losses)


def test_related_pairs_are_no_negatives_and_earlier_ones_are():
    def unit(*shape, seed):
        return torch.nn.functional.normalize(random(*shape, seed=seed), dim=1)

    one, other = unit(6, 5, seed=1), unit(6, 5, seed=2)
    earlier = unit(9, 5, seed=3), unit(9, 5, seed=4)
    related = random(6, 6, seed=5) > 0.7
    related = related | related.T | torch.eye(6, dtype=torch.bool)
    related_earlier = random(6, 9, seed=6) > 0.5
    found = info_nce(
        one, other, 0.3, is_related=related, earlier_one=earlier[0], earlier_other=earlier[1],
        is_related_earlier=related_earlier,
    )  # fmt: skip
    expected = masked_nce_by_loops(one, other, 0.3, related, *earlier, related_earlier)
    assert float(found) == pytest.approx(expected, abs=1e-12)
    assert abs(expected - float(info_nce(one, other, 0.3))) > 0.05


def test_no_pair_has_nothing_to_find():
    nothing = random(0, 5).requires_grad_()
    loss = info_nce(nothing, nothing, 0.1, earlier_other=random(3, 5))
    loss.backward()
    assert loss.item() == 0


def test_gradients_are_those_of_the_numbers():
    logits, tokens = random(1, 6, 4).requires_grad_(), random_tokens(1, 6)
    is_target = torch.tensor([[True, False, True, True, False, True]])
    assert torch.autograd.gradcheck(lambda x: masked_base_loss(x, tokens, is_target), (logits,))
    one, other = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5), (one, other))


# --- expression ---


def scaled_head(level_std, residual_std, n_conditions):
    head = ExpressionHead(2, n_conditions, 1).double()
    head.level_std.fill_(level_std)
    head.residual_std.fill_(residual_std)
    head.condition_mean.copy_(torch.linspace(-1, 1, n_conditions))
    return head


def test_errors_of_expression_are_means_of_squares_in_units_of_the_spread():
    observed = random(5, 3, seed=1)
    predicted, head = Prediction(random(5, seed=2), random(5, 3, seed=3)), scaled_head(2.0, 0.5, 3)
    level_error, residual_error = head.errors(predicted, observed)
    by_gene, by_entry = [], []
    for gene in range(5):
        values = [float(value) for value in observed[gene]]
        level = math.fsum(values) / 3
        by_gene.append(((float(predicted.level[gene]) - level) / 2.0) ** 2)
        for value, mean, guess in zip(values, (-1, 0, 1), predicted.residual[gene], strict=True):
            by_entry.append(((float(guess) - (value - level - mean)) / 0.5) ** 2)
    assert float(level_error) == pytest.approx(math.fsum(by_gene) / 5, abs=1e-12)
    assert float(residual_error) == pytest.approx(math.fsum(by_entry) / 15, abs=1e-12)


def test_the_training_mean_scores_one_and_the_truth_none():
    observed = random(2000, 4, seed=1) * 0.7 + random(2000)[:, None] * 3 + 6
    head = ExpressionHead(2, 4, 1).double()
    head.fit(observed)
    truth = head.split(observed)
    mean = Prediction(truth.level.mean().expand(2000), torch.zeros_like(observed))
    for error in head.errors(mean, observed):
        assert float(error) == pytest.approx(1, abs=0.01)
    assert max(map(float, head.errors(truth, observed))) == 0
    torch.testing.assert_close(head.expression(truth), observed)
