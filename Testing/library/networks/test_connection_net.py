"""The connection network: its shapes and size, what it sees, and that its answer at a gap is that place's own."""

import pytest
import torch

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.connection_net import Connector, fast_form


@pytest.fixture
def a_connector() -> Connector:
    torch.manual_seed(0)
    return Connector().eval()


def test_a_patch_gives_logits_of_its_own_size(a_connector: Connector) -> None:
    with torch.no_grad():
        assert a_connector(torch.rand(2, 2, 16, 24, 32)).shape == (2, 1, 16, 24, 32)


def test_it_is_small_enough_to_be_bundled_and_looks_deep(a_connector: Connector) -> None:
    numbers = [p.numel() for p in a_connector.parameters()]
    assert 1e6 < sum(numbers) < 2e6
    deepest = sum(p.numel() for p in a_connector.down[3].parameters())
    assert deepest > sum(p.numel() for level in a_connector.down[:3] for p in level.parameters())


def test_every_weight_learns_and_both_channels_are_seen() -> None:
    torch.manual_seed(0)
    net, x = Connector(), torch.rand(2, 2, 16, 16, 16, requires_grad=True)
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert x.grad is not None and (x.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).all()


def test_a_patch_is_answered_whatever_lies_beside_it_in_the_batch(a_connector: Connector) -> None:
    one, other = torch.rand(1, 2, 16, 16, 16), 50 * torch.rand(1, 2, 16, 16, 16)
    with torch.no_grad():
        assert torch.allclose(a_connector(one)[0], a_connector(torch.cat((one, other)))[0], atol=1e-4)


def test_the_fast_form_answers_the_same_and_leaves_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    net, x = Connector(), torch.rand(2, 2, 16, 16, 16)
    for _ in range(3):
        net(x)  # so that the running statistics are not the usual ones
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fast = fast_form(net)
    with torch.no_grad():
        assert torch.allclose(fast(x), net.eval()(x), atol=1e-4)
    assert not any(isinstance(part, torch.nn.BatchNorm3d) for part in fast.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 16), (1, 2, 16, 16, 20), (1, 2, 8, 16, 16), (2, 16, 16, 16)])
def test_what_it_cannot_take_is_refused(a_connector: Connector, shape: tuple[int, ...]) -> None:
    with pytest.raises(AirwaySegError, match="multiples of 8"):
        a_connector(torch.zeros(shape))
