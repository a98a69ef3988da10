"""Parameters and multiply-accumulates of whole networks, against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cnnlab import cost
from cnnlab.build import assemble
from cnnlab.compose import Composer


@pytest.mark.parametrize(
    "line", ["model=convnet", "model=singla", "model=linear", "model=singla activation=crelu"]
)
def test_macs_of_a_net_are_half_its_flops(line):
    shape = (3, 32, 32)
    net = assemble(Composer().one(line.split()), shape, classes=10).net.eval()

    def flops(images: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.zeros(images, *shape))
        return counter.get_total_flops()

    assert cost.macs(net, shape) == (flops(2) - flops(1)) // 2


def test_the_articles_network_has_its_parameters():
    net = assemble(Composer().one(["model=singla"]), (3, 32, 32), classes=10).net
    assert cost.parameters(net) == 2432 + 9248 + 18496 + 36928 + 1_180_160 + 5130
