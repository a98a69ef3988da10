"""Viterbi against all chains there are, and the structured hinge against its definition."""

import itertools

import pytest
import torch
from torch.nn import functional as F

import cnnlab
from cnnlab.loss.decoder import ChainDecoder
from cnnlab.loss.structured import DECODERS

N, LENGTH, LABELS = 5, 4, 3
ALL = torch.tensor(list(itertools.product(range(LABELS), repeat=LENGTH)))  # (81, 4)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(**knobs):
    loss = cnnlab.create("loss", "structured_hinge", **knobs)
    loss.prepare(LABELS, length=LENGTH)
    for parameter in loss.parameters():
        parameter.data = random(*parameter.shape, seed=1)
    return loss.double()


def score(unary, transitions, chain):
    """Of one chain, place by place."""
    total = sum(unary[place, label] for place, label in enumerate(chain))
    return float(total + sum(transitions[a, b] for a, b in itertools.pairwise(chain)))


def test_viterbi_finds_the_best_of_all_chains():
    decoder = ChainDecoder(LABELS).double()
    decoder.transitions.data = transitions = 2 * random(LABELS, LABELS, seed=1)
    unary = random(N, LENGTH, LABELS)
    best = [max(ALL.tolist(), key=lambda chain, u=u: score(u, transitions, chain)) for u in unary]
    assert decoder.decode(unary).tolist() == best
    assert best != unary.argmax(2).tolist(), "the transitions mattered"
    slow = torch.tensor([score(u, transitions, chain) for u, chain in zip(unary, best, strict=True)])
    torch.testing.assert_close(decoder.score(unary, torch.tensor(best)), slow.double())


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_loss_is_the_worst_violation_of_all_chains(decoder):
    loss = made(decoder=decoder)
    transitions = next(loss.parameters(), torch.zeros(LABELS, LABELS)).detach()
    scores, targets = random(N, LENGTH * LABELS), ALL[[0, 5, 40, 77, 80]]
    slow = 0.0
    for unary, truth in zip(scores.view(N, LENGTH, LABELS), targets.tolist(), strict=True):
        rivals = (
            sum(a != b for a, b in zip(chain, truth, strict=True)) + score(unary, transitions, chain)
            for chain in ALL.tolist()
        )
        slow += max(rivals) - score(unary, transitions, truth)
    assert loss(scores, targets).item() == pytest.approx(slow / N)


def test_without_transitions_every_place_is_judged_on_its_own():
    loss = made(decoder="independent")
    scores, targets = random(N, LENGTH * LABELS), ALL[[0, 5, 40, 77, 80]]
    unary = scores.view(N, LENGTH, LABELS)
    right = unary.gather(2, targets.unsqueeze(2))
    worst = (unary + 1 - F.one_hot(targets, LABELS)).amax(2) - right.squeeze(2)
    torch.testing.assert_close(loss(scores, targets), worst.sum(1).mean())
    assert loss.decode(scores).tolist() == unary.argmax(2).tolist()


def test_the_loss_is_0_from_a_margin_of_one_for_every_wrong_label_on():
    loss = cnnlab.create("loss", "structured_hinge")
    loss.prepare(LABELS, length=LENGTH)
    targets = ALL[[3, 70]]
    scores = F.one_hot(targets, LABELS).double().flatten(1)
    assert loss(scores, targets).item() == 0
    assert loss(0.75 * scores, targets).item() == 0.25 * LENGTH


def test_the_transitions_learn_from_the_pairs_that_were_wrong():
    loss = cnnlab.create("loss", "structured_hinge")
    loss.prepare(2, length=3)
    # The best chain is 1 1 1, the right one 0 0 1: the pair 1 1 is wrong twice, 0 0 and 0 1 are missed once.
    loss(torch.tensor([[0.0, 9.0, 0.0, 9.0, 0.0, 9.0]]), torch.tensor([[0, 0, 1]])).backward()
    assert loss.decoder.transitions.grad.tolist() == [[-1.0, -1.0], [0.0, 2.0]]


def test_any_decoder_can_be_plugged_in():
    class Alternating(torch.nn.Module):
        """Chains of two labels that take turns: 0101... or 1010..."""

        def __init__(self, labels):
            super().__init__()
            self.chains = torch.tensor([[0, 1, 0], [1, 0, 1]])

        def score(self, unary, labels):
            return unary.gather(2, labels.unsqueeze(2)).sum((1, 2))

        def decode(self, unary):
            both = torch.stack([self.score(unary, c.expand(len(unary), -1)) for c in self.chains], 1)
            return self.chains[both.argmax(1)]

    loss = cnnlab.create("loss", "structured_hinge", decoder=Alternating)
    loss.prepare(2, length=3)
    scores = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 2.0]])  # 010 scores 1, 101 3
    assert loss.decode(scores).tolist() == [[1, 0, 1]]
    assert loss(scores, torch.tensor([[0, 1, 0]])).item() == 3 + 3 - 1


@pytest.mark.parametrize("decoder", ["tree", None, [1]])
def test_another_decoder_is_refused(decoder):
    with pytest.raises(ValueError, match=r"^decoder must be one of chain, independent; got "):
        cnnlab.create("loss", "structured_hinge", decoder=decoder)


def test_a_chain_of_one_place_has_no_transitions():
    decoder = ChainDecoder(LABELS)
    unary = random(N, 1, LABELS)
    assert decoder.decode(unary).tolist() == unary.argmax(2).tolist()
    torch.testing.assert_close(decoder.score(unary, decoder.decode(unary)).double(), unary.amax((1, 2)))
