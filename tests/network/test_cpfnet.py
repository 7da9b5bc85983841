"""The paper's network and the guide's: counts, the authors' numbers, sizes, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpfnet.errors import NetworkError
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.encoder import ResNetEncoder, deepest
from cpfnet.network.guide import GuideCPFNet
from cpfnet.network.hr import CPFNetHR
from cpfnet.network.pretrained.load import import_official
from tests.network.official import REFERENCE


@pytest.fixture(scope="module")
def network() -> CPFNet:
    torch.manual_seed(0)
    network = CPFNet(3, 4).eval()
    for name, value in network.state_dict().items():
        if name.endswith("bn2.weight"):  # from zero, the residual blocks would do nothing
            value.fill_(0.5)
    return network


@pytest.mark.parametrize(("kind", "count"), [(CPFNet, 30_650_823), (GuideCPFNet, 27_639_881)])
def test_parameters_are_counted_to_the_digit(kind: type, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in kind(3, 4).parameters()) == count


def test_the_authors_numbers_come_out(official_state: dict[str, torch.Tensor]) -> None:
    reference = np.load(REFERENCE / "official_forward.npz")
    network = CPFNet(3, 4).eval()
    network.load_state_dict(import_official(official_state))
    found = {}
    network.sapf.register_forward_hook(lambda module, args, out: found.update(sap=out))
    network.gpg4.register_forward_hook(lambda module, args, out: found.update(mce_4=out))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 96, 128)).astype(np.float32))
    with torch.no_grad():
        found["log_probabilities"] = torch.log_softmax(network(x), dim=1)
    assert set(found) == set(reference.files)
    for name, values in found.items():
        np.testing.assert_allclose(values, reference[name], atol=1e-4, rtol=0, err_msg=name)


def test_encoder_taps_have_the_papers_sizes() -> None:
    x = torch.rand(1, 3, 96, 70)
    for stride, sizes in (
        (2, [(48, 35), (24, 18), (12, 9), (6, 5), (3, 3)]),
        (1, [(96, 70), (48, 35), (24, 18), (12, 9), (6, 5)]),
    ):
        encoder = ResNetEncoder(3, stem_stride=stride).eval()
        with torch.no_grad():
            taps = encoder(x)
        assert [tuple(tap.shape[2:]) for tap in taps] == sizes
        assert [tap.shape[1] for tap in taps] == [64, 64, 128, 256, 512]
        assert tuple(deepest(encoder.strides, x.shape[2:])) == sizes[-1]
        assert all(tap.min() >= 0 for tap in taps)  # after their ReLU


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("kind", [CPFNet, CPFNetHR])
def test_a_narrow_network_is_the_same_with_fewer_channels(kind: type, width: int) -> None:
    """Each weight's axes shrink with the width of c1, except those of image, classes and SAM's two maps."""
    with torch.device("meta"):
        narrow, paper = kind(3, 4, width=width).state_dict(), kind(3, 4).state_dict()
    assert list(narrow) == list(paper)
    # Kernels, the image's channels, the classes and SAM's maps; nothing else is as short in the paper's.
    kept = (1, 2, 3, 4, 7)
    for key, tensor in paper.items():
        expected = [n if n in kept else n * width // 64 for n in tensor.shape]
        assert list(narrow[key].shape) == expected, key
    x = torch.rand(2, 3, 40, 33)
    with torch.no_grad():
        assert kind(3, 4, width=width).eval()(x).shape == (2, 4, 40, 33)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_encoder_begins_as_a_shallow_network(dims: int) -> None:
    """Residual blocks without a projection give what they were given (non-negative, after a ReLU)."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(3, spatial_dims=dims).eval()
    with torch.no_grad():
        for layer, channels in ((encoder.layer1, 64), (encoder.layer4[1:], 512)):
            x = torch.rand(1, channels, *[4] * dims)
            assert torch.equal(layer(x), x)


@pytest.mark.parametrize("kind", [CPFNet, GuideCPFNet])
def test_a_retinal_photograph_comes_back(kind: type) -> None:
    with torch.no_grad():
        assert kind(3, 2).eval()(torch.rand(1, 3, 565, 584)).shape == (1, 2, 565, 584)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CPFNet, GuideCPFNet])
def test_an_odd_volume_comes_back(kind: type) -> None:
    with torch.no_grad():
        assert kind(1, 2, spatial_dims=3).eval()(torch.rand(1, 1, 33, 47, 65)).shape == (1, 2, 33, 47, 65)


@pytest.mark.parametrize("kind", [CPFNet, GuideCPFNet])
def test_stem_stride_1_keeps_the_size(kind: type) -> None:
    network = kind(1, 2, stem_stride=1).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 33, 40)).shape == (1, 2, 33, 40)


def test_memory_format_changes_nothing(network: CPFNet) -> None:
    x = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        plain = network(x)
        last = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    network.to(memory_format=torch.contiguous_format)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, atol=1e-4, rtol=1e-4)


def test_at_gamma_zero_sapf_passes_its_input_on(network: CPFNet) -> None:
    assert network.sapf.gamma.item() == 0
    x = torch.randn(1, 512, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(network.sapf(x), network.sapf.out(x.relu()))


@pytest.mark.parametrize("kind", [CPFNet, GuideCPFNet])
@pytest.mark.parametrize(
    ("shape", "messages"),
    [
        ((3, 64, 64), ["3 axes", "3×64×64", "(batch, 3, height, width)"]),
        ((1, 3, 40, 64, 64), ["5 axes", "1×3×40×64×64", "spatial_dims=2"]),
        ((1, 1, 64, 64), ["1 channels", "1×1×64×64", "(batch, 3, height, width)", "in_channels=1"]),
        ((1, 3, 31, 64), ["31×64", "at least 32", "pad it to 32×64"]),
    ],
)
def test_inputs_that_cannot_be_are_refused(kind: type, shape: tuple[int, ...], messages: list[str]) -> None:
    with pytest.raises(NetworkError) as caught:
        kind(3, 2)(torch.rand(shape))
    for words in messages:
        assert words in str(caught.value)


@pytest.mark.parametrize("kind", [CPFNet, GuideCPFNet])
def test_training_needs_more_than_one_value_per_channel(kind: type) -> None:
    network = kind(1, 2)
    with pytest.raises(NetworkError, match=r"one sample of 32×32(.|\n)*batch of 2 or more"):
        network(torch.rand(1, 1, 32, 32))
    network(torch.rand(2, 1, 32, 32))
    network(torch.rand(1, 1, 32, 33))
    network.eval()(torch.rand(1, 1, 32, 32))


def test_volumes_of_one_value_are_refused_too() -> None:
    with torch.device("meta"), pytest.raises(NetworkError, match="32×32×32"):
        CPFNet(1, 2, spatial_dims=3)(torch.rand(1, 1, 32, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"in_channels": 0}, "in_channels = 0"),
        ({"classes": 0}, "classes = 0"),
        ({"classes": 2.0}, "classes = 2.0"),
        ({"spatial_dims": 4}, "spatial_dims = 4"),
        ({"stem_stride": 3}, "stem_stride = 3"),
        ({"width": 0}, "width = 0"),
        ({"width": 15}, "width = 15(.|\n)*even number above 0; 64 is the paper's"),
        ({"width": 32.0}, "width = 32.0"),
        ({"width": None}, "width = None"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, int], messages: str) -> None:
    with pytest.raises(NetworkError, match=messages):
        CPFNet(**{"in_channels": 3, "classes": 2} | arguments)
