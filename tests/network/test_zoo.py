"""Networks by name: what is known, what is refused, and how one's own joins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets.mednext import MedNeXtSmall, create_mednext

from cpfnet.errors import NetworkError
from cpfnet.network import zoo


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", zoo.names())
def test_defaults_build(name: str, spatial_dims: int) -> None:
    with torch.device("meta"):
        network = zoo.build(name, 1, 3, spatial_dims=spatial_dims).eval()
        assert network(torch.rand(2, 1, *(64,) * spatial_dims)).shape == (2, 3, *(64,) * spatial_dims)


def test_unet_has_the_widths_of_2015() -> None:
    with torch.device("meta"):
        network = zoo.build("unet", 1, 2)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted({m.out_channels for m in convolutions[:-1]}) == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize(
    ("spatial_dims", "options", "multiple"),
    [
        (2, {}, (64, 64)),
        (2, {"patch": [512, 512]}, (128, 128)),
        (2, {"patch": [320, 64]}, (64, 16)),
        (3, {"patch": [128, 128, 128]}, (32, 32, 32)),
        # nnU-Net's published plan for 5 mm slices: the plane is halved first, the slices once the spacings are near.
        (3, {"patch": [40, 256, 256], "spacing": [5.0, 1.0, 1.0]}, (8, 64, 64)),
    ],
)
def test_dynunet_is_as_deep_as_the_patch_allows(spatial_dims: int, options: dict, multiple: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert zoo.build("dynunet", 1, 2, spatial_dims=spatial_dims, **options).multiple == multiple


def test_hints_reach_the_networks_that_know_them_and_options_win() -> None:
    hints = {"patch": (40, 256, 256), "spacing": (5.0, 1.0, 1.0), "colour": "red"}
    with torch.device("meta"):
        assert zoo.build("dynunet", 1, 2, spatial_dims=3, hints=hints).multiple == (8, 64, 64)
        assert zoo.build("dynunet", 1, 2, spatial_dims=3, hints=hints, spacing=[1, 1, 1]).multiple == (8, 32, 32)
        assert zoo.build("dynunet", 1, 2, spatial_dims=3, hints=hints, patch=[64] * 3).multiple == (8, 16, 16)
        assert zoo.build("unet", 1, 2, spatial_dims=3, hints=hints).multiple == (16,) * 3


@pytest.mark.parametrize(
    ("patch", "spacing"), [((64, 96), None), ((64, 64, 96), None), ((40, 128, 128), (5.0, 1.0, 1.0))]
)
def test_deep_supervision_judges_the_decoder_above_its_lowest_level(
    patch: tuple[int, ...], spacing: tuple[float, ...] | None
) -> None:
    dims = len(patch)
    options = {"patch": patch, "spacing": spacing, "widths": [4] * 8}
    torch.manual_seed(0)
    plain = zoo.build("dynunet", 1, 3, spatial_dims=dims, **options)
    torch.manual_seed(0)
    supervised = zoo.build("dynunet", 1, 3, spatial_dims=dims, deep_supervision=True, **options)
    own = plain.state_dict()
    heads = set(supervised.state_dict()) - set(own)
    assert all(torch.equal(supervised.state_dict()[key], value) for key, value in own.items())
    strides = [level.upsample.transp_conv.conv.stride for level in levels(supervised)]
    x = torch.rand(1, 1, *patch)
    outputs = supervised.train()(x)
    assert len(outputs) == len(strides) - 1 == len(heads) // 2 + 1
    size = patch
    for output, stride in zip(outputs, strides, strict=False):
        assert output.shape == (1, 3, *size)
        size = tuple(n // s for n, s in zip(size, stride, strict=True))
    assert torch.equal(outputs[0], plain.train()(x))
    assert torch.equal(supervised.eval()(x), plain.eval()(x))


def levels(network: torch.nn.Module) -> list[torch.nn.Module]:
    """Of MONAI's DynUNet, finest first."""
    found = [network.network.skip_layers]
    while hasattr(found[-1].next_layer, "next_layer"):
        found.append(found[-1].next_layer)
    return found


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_mednext_judges_every_level_of_its_decoder_and_keeps_monais_output(spatial_dims: int) -> None:
    torch.manual_seed(0)
    plain = zoo.build("mednext", 1, 3, spatial_dims=spatial_dims)
    torch.manual_seed(0)
    supervised = zoo.build("mednext", 1, 3, spatial_dims=spatial_dims, deep_supervision=True)
    torch.manual_seed(0)
    monai = MedNeXtSmall(spatial_dims=spatial_dims, in_channels=1, out_channels=3)
    x = torch.rand(1, 1, *(32, 48, 32)[:spatial_dims])
    outputs = supervised.train()(x)
    expected = [tuple(n // 2**level for n in x.shape[2:]) for level in range(4)]
    assert [tuple(one.shape[2:]) for one in outputs] == expected
    for found in (outputs[0], plain.train()(x), plain.eval()(x), supervised.eval()(x)):
        torch.testing.assert_close(found, monai(x))


@pytest.mark.parametrize("size", ["small", "base", "medium", "large"])
def test_mednext_has_the_papers_sizes(size: str) -> None:
    with torch.device("meta"):
        found = zoo.build("mednext", 1, 2, spatial_dims=3, size=size).state_dict()
        theirs = create_mednext(size[0], 3, 1, 2).state_dict()
    assert {key.removeprefix("network."): value.shape for key, value in found.items()} == {
        key: value.shape for key, value in theirs.items()
    }


def test_logits_of_several_sizes_are_cut_to_their_share() -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x, x[..., ::4, ::4]]

    x = torch.rand(1, 1, 33, 40)
    network = zoo.AnySize(Two(), 1, 1, 2, 16)
    fine, coarse = network.train()(x)
    assert torch.equal(fine, x)
    assert torch.equal(coarse, x[..., ::4, ::4])
    assert torch.equal(network.eval()(x), x)


@pytest.mark.parametrize(
    ("name", "near"), [("cpfnett", "'cpfnet'"), ("UNet", "'unet'"), ("resnet34_unet", "'resnet34-unet'")]
)
def test_a_mistyped_name_is_told_its_neighbour(name: str, near: str) -> None:
    for ask in (lambda: zoo.build(name, 1, 2), lambda: zoo.NETWORKS.check_name(name)):
        with pytest.raises(NetworkError, match=f"did you mean {near}"):
            ask()


def test_a_wild_name_is_told_all_names() -> None:
    with pytest.raises(NetworkError, match="known are cpfnet, cpfnet-hr, cpfnet-guide, unet"):
        zoo.build("transformer9000", 1, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "cpfnet",
            {"stem_strides": 1},
            "no option 'stem_strides'(.|\n)*did you mean 'stem_stride'. its options are stem_stride",
        ),
        ("resnet34-unet", {"pretrained": True}, "it has no options"),
        ("unet", {"widths": [8, 16]}, "give 5 whole numbers"),
        ("unet", {"widths": "wide"}, "widths = 'wide'"),
        ("unet", {"widths": 64}, "widths = 64"),
        ("attention-unet", {"widths": [8]}, "two or more"),
        ("unet++", {"widths": [8, 16, 32, 64, -1]}, "-1"),
        ("segresnet", {"width": 12}, "divisible by 8"),
        ("mednext", {"size": "S"}, "small, base, medium, large"),
        ("mednext", {"deep_supervision": 1}, "give true or false"),
        ("dynunet-res", {"deep_supervision": "yes"}, "give true or false"),
        ("dynunet", {"deep_supervision": "yes"}, "give true or false"),
        ("dynunet", {"patch": [64]}, "give 2 numbers, each at least 32"),
        ("dynunet", {"patch": [64, 16]}, "each at least 32"),
        ("dynunet", {"patch": 7}, "give 2 numbers"),
        ("dynunet", {"spacing": [1, 0]}, "each at least 1e-06"),
        ("dynunet", {"patch": 64}, "give 2 numbers"),
        ("dynunet", {"patch": [256, 256], "widths": [8, 16, 32]}, "7 levels"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        zoo.build(name, 1, 2, **options)


@pytest.mark.parametrize("arguments", [(0, 2, 2), (1, 0, 2), (1, 2, 1)])
def test_arguments_that_cannot_be_are_refused(arguments: tuple[int, int, int]) -> None:
    in_channels, classes, spatial_dims = arguments
    with pytest.raises(NetworkError):
        zoo.build("unet", in_channels, classes, spatial_dims=spatial_dims)


class Own(torch.nn.Module):
    """A user's network that halves the size and gives a list."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(in_channels, 4, 2, stride=2)
        self.up = torch.nn.ConvTranspose2d(4, classes, 2, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.up(self.down(x))]


def test_a_users_own_network_joins_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.NETWORKS, "_registered", dict(zoo.NETWORKS.registered()))

    def builder(in_channels: int, classes: int, *, spatial_dims: int, bright: bool = False) -> torch.nn.Module:
        return zoo.AnySize(Own(in_channels, classes), in_channels, classes, spatial_dims, 2)

    zoo.register("own", builder)
    assert "own" in zoo.names()
    network = zoo.build("own", 2, 3, bright=True)
    assert network(torch.rand(1, 2, 33, 65)).shape == (1, 3, 33, 65)
    assert (network.in_channels, network.classes, network.spatial_dims) == (2, 3, 2)
    with pytest.raises(NetworkError, match="its options are bright"):
        zoo.build("own", 2, 3, dark=True)
    with pytest.raises(NetworkError, match="registered already"):
        zoo.register("own", builder)


@pytest.mark.parametrize("builder", [lambda in_channels, classes: None, lambda x, y, z, *, spatial_dims: None])
def test_a_builder_that_cannot_be_called_is_refused_when_it_joins(builder: Callable) -> None:
    with pytest.raises(NetworkError, match="in_channels, classes"):
        zoo.register("own", builder)
    assert "own" not in zoo.names()


@settings(deadline=None)
@given(
    size=st.lists(st.integers(32, 70), min_size=2, max_size=3),
    multiple=st.integers(1, 64),
    at_least=st.integers(1, 2),
)
def test_padding_repeats_the_edge_and_is_cut_off_again(size: list[int], multiple: int, at_least: int) -> None:
    seen = []

    class Probe(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    x = torch.rand(1, 1, *size)
    assert torch.equal(zoo.AnySize(Probe(), 1, 1, len(size), multiple, at_least=at_least).eval()(x), x)
    padded = seen[0].shape[2:]
    assert all(
        p % multiple == 0 and p >= at_least * multiple and 0 <= p - n < 2 * multiple
        for p, n in zip(padded, size, strict=True)
    )
    amounts = [a for n, p in zip(reversed(size), reversed(padded), strict=True) for a in (0, p - n)]
    assert torch.equal(seen[0], torch.nn.functional.pad(x, amounts, mode="replicate"))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_fits_is_not_copied(layout: torch.memory_format) -> None:
    class Probe(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return x

    probe = Probe()
    x = torch.rand(2, 3, 32, 48).contiguous(memory_format=layout)
    assert zoo.AnySize(probe, 3, 3, 2, 16)(x) is probe.seen is x
    padded = zoo.AnySize(probe, 3, 3, 2, 32)(x)
    assert probe.seen.shape == (2, 3, 32, 64)
    assert torch.equal(padded, x)


def test_an_installed_package_brings_its_network(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "import torch\n"
        "def build(in_channels, classes, *, spatial_dims):\n"
        "    return torch.nn.Conv2d(in_channels, classes, 1)\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cpfnet.networks]\ntheir-net = theirs:build\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    program = "from cpfnet.network import zoo; print(zoo.names()[-1], type(zoo.build('their-net', 3, 2)).__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["their-net", "Conv2d"], done.stderr
    (info / "entry_points.txt").write_text("[cpfnet.networks]\ntheir-net = theirs:nothing\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert "the network 'their-net' of an installed package cannot be loaded" in done.stderr


def test_a_dynunet_built_for_flat_patches_takes_flat_volumes_and_no_flatter_ones() -> None:
    network = zoo.build("dynunet", 1, 3, spatial_dims=3, hints={"patch": (20, 64, 64), "spacing": (5, 1.5, 1.5)})
    assert network(torch.zeros(1, 1, 20, 64, 64)).shape == (1, 3, 20, 64, 64)
    assert network.eval()(torch.zeros(1, 1, 21, 70, 64)).shape == (1, 3, 21, 70, 64)
    with pytest.raises(NetworkError, match=r"every axis needs at least 20×32×32 pixels(.|\n)*pad it to 20×64×64"):
        network(torch.zeros(1, 1, 19, 64, 64))
    with pytest.raises(NetworkError, match="each at least 8"):
        zoo.build("dynunet", 1, 3, spatial_dims=3, patch=(7, 64, 64))
