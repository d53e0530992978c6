"""The running mean of weights: as the formula says, exchanged and back, resumed exactly."""

from __future__ import annotations

import torch
from torch import nn

from lganet_fast.training.average import Average


def test_it_is_the_mean_of_the_weights_so_far():
    network = nn.Linear(2, 1)
    average = Average(network, 0.9)
    expected = network.weight.detach().double().clone()
    for step in range(1, 200):
        with torch.no_grad():
            network.weight.add_(torch.randn(1, 2))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach().double()
    torch.testing.assert_close(average.means[0].double(), expected, rtol=1e-4, atol=1e-4)


def test_it_is_applied_in_a_block_only_and_resumes():
    network, other = nn.Linear(3, 2), nn.Linear(3, 2)
    average, resumed = Average(network, 0.99), Average(other, 0.99)
    with torch.no_grad():
        network.bias.add_(1)
    average.update()
    weights, means = network.bias.detach().clone(), average.means[1].clone()
    with average.applied():
        assert torch.equal(network.bias, means)
    assert torch.equal(network.bias, weights)
    assert not torch.equal(weights, means)
    resumed.load_state_dict(average.state_dict())
    assert torch.equal(resumed.means[1], average.means[1])
    assert resumed.steps == 1


def test_without_a_decay_nothing_is_kept():
    network = nn.Linear(2, 1)
    average = Average(network, 0.0)
    before = network.weight.detach().clone()
    average.update()
    with average.applied():
        assert torch.equal(network.weight, before)
    assert not average.means
