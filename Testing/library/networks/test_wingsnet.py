"""WingsNet against its published form, written out plainly in published_wingsnet.py."""

import pytest
import torch
from published_wingsnet import PublishedWingsNet, as_published

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.wingsnet import WingsNet, fast_form, published_to_ours


def a_published_net(in_channels: int = 1, classes: int = 1) -> PublishedWingsNet:
    torch.manual_seed(in_channels * 10 + classes)
    return PublishedWingsNet(in_channels, classes).eval()


def converted(published: PublishedWingsNet, dropout: float = 0.3) -> WingsNet:
    state, in_channels, classes = published_to_ours(published.state_dict())
    net = WingsNet(in_channels, classes, dropout=dropout)
    net.load_state_dict(state)
    return net.eval()


def a_window(channels: int = 1, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, channels, 24, 32, 16, generator=torch.Generator().manual_seed(3))


def test_there_are_1473186_parameters() -> None:
    assert sum(p.numel() for p in WingsNet().parameters()) == 1_473_186


def test_half_the_channels_are_a_quarter_of_the_parameters_and_have_a_fast_form() -> None:
    torch.manual_seed(4)
    net, x = WingsNet(width=0.5).eval(), a_window()
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1_473_186 / 4, rel=0.01)
    with torch.no_grad():
        expected = net(x)[1]
    assert expected.std() > 1e-3 and torch.allclose(fast_form(net)(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("in_channels", "classes"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_converted_weights_give_the_published_output_in_both_forms(in_channels: int, classes: int) -> None:
    published = a_published_net(in_channels, classes)
    net, x = converted(published), a_window(in_channels, 2)
    with torch.no_grad():
        expected, actual = published(x), net(x)
    assert expected[1].std() > 1e-3
    assert torch.allclose(actual[0], expected[0], rtol=0, atol=1e-5)
    assert torch.allclose(actual[1], expected[1], rtol=0, atol=1e-5)
    assert torch.allclose(fast_form(net)(x), expected[1], rtol=0, atol=1e-5)


def test_dropout_at_low_resolution_equals_dropout_of_the_full_pyramid(monkeypatch: pytest.MonkeyPatch) -> None:
    published, x = a_published_net(), a_window(batch=2)
    net = converted(published).train()
    generator = torch.Generator().manual_seed(1)
    drops = [(torch.rand(2, n, generator=generator) > 0.3).float() / 0.7 for n in (24, 12)]
    for head, drop in zip((net.encoder_head, net.decoder_head), drops, strict=True):
        monkeypatch.setattr(head, "channel_scale", lambda x, drop=drop: drop)
    actual = net(x)
    expected = published(x, (drops[0][..., None, None, None], drops[1][..., None, None, None]))
    for one, other in zip(actual, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5)
    sum(y.square().mean() for y in actual).backward()
    sum(y.square().mean() for y in expected).backward()
    for ours, theirs in (
        (net.encoder[4].side.weight, published.ec5.conv2.weight),
        (net.decoder_head.convolution.weight, published.dc0_1[0].weight),
        (net.encoder[0].convolution.weight, published.ec1.conv1.weight),
    ):
        assert theirs.grad.abs().max() > 0
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_dropout_scales_each_window_by_itself_and_rests_in_evaluation() -> None:
    head, x = WingsNet(dropout=0.3).encoder_head, torch.zeros(4000, 1)
    scale = head.channel_scale(x)
    assert scale.shape == (4000, 24)
    assert scale.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert scale.mean().item() == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(scale[0], scale[1])
    assert torch.equal(head.eval().channel_scale(x), torch.ones(4000, 24))


def test_the_fast_form_folds_batch_normalisation() -> None:
    torch.manual_seed(0)
    net, x = WingsNet(norm="batch"), a_window(batch=2)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    for _ in range(5):
        net(x)
    net.eval()
    with torch.no_grad():
        expected = as_published(net)(x)
        assert expected[1].std() > 1e-3
        for one, other in zip(net(x), expected, strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-5)
    assert torch.allclose(fast_form(net)(x), expected[1], rtol=0, atol=1e-5)


def test_the_fast_form_keeps_its_own_weights() -> None:
    net, x = converted(a_published_net()), a_window()
    fast = fast_form(net)
    before = fast(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(fast(x), before)
    assert all(not p.requires_grad for p in fast.parameters())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_every_parameter_learns(norm: str) -> None:
    net = WingsNet(norm=norm, dropout=0.0)
    encoder, decoder = net(a_window())
    (encoder.square().mean() + decoder.square().mean()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("shape", [(1, 1, 20, 32, 16), (1, 1, 32, 32, 8), (1, 2, 32, 32, 32), (1, 32, 32, 32)])
def test_a_window_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    for net in (WingsNet(), fast_form(WingsNet())):
        with pytest.raises(AirwaySegError):
            net(torch.zeros(shape))


def test_the_refusal_names_axis_and_size() -> None:
    with pytest.raises(AirwaySegError, match="axis z has 20 voxels"):
        WingsNet()(torch.zeros(1, 1, 20, 32, 16))


def test_the_prefix_of_a_parallel_training_is_dropped() -> None:
    state = a_published_net().state_dict()
    ours, in_channels, classes = published_to_ours({f"module.{key}": value for key, value in state.items()})
    assert (in_channels, classes) == (1, 1)
    assert torch.equal(ours["decoder.5.gates.0.weight"], state["dc6.conv_se.weight"])


def test_a_wrong_state_dict_is_refused_by_its_first_wrong_key() -> None:
    state = dict(a_published_net().state_dict())
    without = {key: value for key, value in state.items() if key != "ec4.conv_se2.weight"}
    with pytest.raises(AirwaySegError, match=r"lacks ec4\.conv_se2\.weight"):
        published_to_ours(without)
    with pytest.raises(AirwaySegError, match=r"extra\.weight is unknown"):
        published_to_ours({**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(AirwaySegError, match=r"dc2\.conv1\.weight is \(64, 32, 3, 3, 3\)"):
        published_to_ours({**state, "dc2.conv1.weight": torch.zeros(64, 32, 3, 3, 3)})
    with pytest.raises(AirwaySegError, match=r"ec1\.conv1\.weight"):
        published_to_ours({})
