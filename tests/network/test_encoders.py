"""What every encoder promises, and what CPFNet makes of it: the package's ResNets, and one of a user's own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import safetensors.torch
import torch
from monai.networks.nets.resnet import ResNetBottleneck
from torch import Tensor, nn
from torch.export import Dim, export

from cpfnet.errors import CodeError, NetworkError, WeightsError
from cpfnet.network import zoo
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.encoder import ResNetEncoder, find_encoder
from cpfnet.network.encoder_zoo import ENCODERS, RESNETS, build_encoder, register
from cpfnet.network.fuse import fuse
from cpfnet.network.guide import GuideCPFNet
from cpfnet.network.hr import CPFNetHR
from cpfnet.network.pretrained import store
from cpfnet.network.pretrained.load import depth_of, load_imagenet
from tests.network.test_fuse import difference

NETWORKS = (CPFNet, CPFNetHR, GuideCPFNet)


class Pyramid(nn.Module):
    """A user's own: odd channel counts, and strides that end at 16."""

    channels, strides = (5, 9, 16, 21, 33), (2, 2, 4, 8, 16)

    def __init__(self, in_channels: int, *, spatial_dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d
        steps = zip(itertools.pairwise((in_channels, *self.channels)), (2, 1, 2, 2, 2), strict=True)
        self.steps = nn.ModuleList(
            nn.Sequential(conv(a, b, 3, stride=stride, padding=1), norm(b), nn.ReLU()) for (a, b), stride in steps
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(itertools.accumulate(self.steps, lambda y, step: step(y), initial=x))[1:]


@pytest.fixture(params=[*RESNETS, "pyramid"])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ENCODERS, "_registered", dict(ENCODERS.registered()))
    register("pyramid", Pyramid)
    return request.param


def narrow(name: str, kind: type[nn.Module] = CPFNet, spatial_dims: int = 2) -> nn.Module:
    """As few channels as can be, and no branch that starts from zero."""
    torch.manual_seed(0)
    network = zoo.build(
        {CPFNet: "cpfnet", CPFNetHR: "cpfnet-hr", GuideCPFNet: "cpfnet-guide"}[kind],
        3,
        2,
        spatial_dims=spatial_dims,
        encoder=name,
        **({} if kind is GuideCPFNet else {"width": 8}),
    )
    for key, parameter in network.named_parameters():
        if not key.endswith("bias") and not parameter.any():
            nn.init.constant_(parameter, 0.3)
    return network


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 34, 71)])
def test_it_gives_the_five_maps_that_it_promises(name: str, size: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, 4, spatial_dims=len(size)).eval()
        maps = encoder(torch.zeros(2, 4, *size))
    assert len(maps) == len(encoder.channels) == len(encoder.strides) == 5
    for one, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert one.shape == (2, channels, *(-(-n // stride) for n in size))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", [(33, 47), (34, 32, 65)])
def test_every_network_takes_it(name: str, kind: type[nn.Module], size: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = kind(1, 3, spatial_dims=len(size), encoder=name).eval()
        assert network(torch.zeros(2, 1, *size)).shape == (2, 3, *size)
        outputs = network.train()(torch.zeros(2, 1, *size))
    assert (outputs[0] if isinstance(outputs, list) else outputs).shape == (2, 3, *size)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weight_learns_and_the_fused_network_gives_the_same(name: str, kind: type[nn.Module]) -> None:
    if (kind is not CPFNet and name not in ("resnet50", "pyramid")) or (kind, name) == (GuideCPFNet, "resnet50"):
        return  # others differ in depth alone; the guide's network is never narrow, and so takes long
    network = narrow(name, kind).train()
    outputs = network(torch.rand(2, 3, 64, 64))
    sum(o.square().mean() for o in (outputs if isinstance(outputs, list) else [outputs])).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert key.endswith("bias") or parameter.grad.any(), key
    fused = fuse(network.eval())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fused.modules())
    assert difference(network, fused, (33, 47), torch.float32) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "pyramid"], indirect=True)
def test_it_exports_with_free_sizes(name: str) -> None:
    network = narrow(name).eval()
    free = {0: Dim("batch", min=1, max=64), 2: Dim("height", min=33, max=4096), 3: Dim("width", min=33, max=4096)}
    program = export(network, (torch.rand(2, 3, 65, 71),), dynamic_shapes=(free,)).module()
    x = torch.rand(1, 3, 33, 97)
    with torch.no_grad():
        torch.testing.assert_close(program(x), network(x), atol=1e-5, rtol=1e-5)


def torchvision(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ``resnet{depth}`` without ``fc``, written down from its architecture."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    expansion = 4 if depth >= 50 else 1
    shapes: dict[str, tuple[int, ...]] = {}

    def bn(key: str, channels: int) -> None:
        shapes.update({f"{key}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{key}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    bn("bn1", 64)
    before = 64
    for stage, count in enumerate(blocks):
        planes = 64 * 2**stage
        after = planes * expansion
        for block in range(count):
            key = f"layer{stage + 1}.{block}"
            kernels = [(planes, before, 3), (planes, planes, 3)]
            if expansion == 4:
                kernels = [(planes, before, 1), (planes, planes, 3), (after, planes, 1)]
            for number, (out, into, side) in enumerate(kernels, 1):
                shapes[f"{key}.conv{number}.weight"] = (out, into, side, side)
                bn(f"{key}.bn{number}", out)
            if block == 0 and (stage > 0 or before != after):
                shapes[f"{key}.downsample.0.weight"] = (after, before, 1, 1)
                bn(f"{key}.downsample.1", after)
            before = after
    return shapes


PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}
"""Parameters that torchvision's documentation states, with the classifier."""


@pytest.mark.parametrize("depth", PUBLISHED)
def test_names_and_shapes_are_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(3, depth=depth)
    assert {key: tuple(value.shape) for key, value in encoder.state_dict().items()} == torchvision(depth)
    classifier = 1000 * (encoder.channels[-1] + 1)
    assert sum(p.numel() for p in encoder.parameters()) + classifier == PUBLISHED[depth]


def test_a_bottleneck_has_its_stride_where_torchvision_has_it() -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(3, depth=50)
    for stage in (encoder.layer2, encoder.layer3, encoder.layer4):
        assert (stage[0].conv1.stride, stage[0].conv2.stride, stage[0].conv3.stride) == ((1, 1), (2, 2), (1, 1))
        assert stage[0].downsample[0].stride == (2, 2)


@pytest.mark.parametrize("dims", [2, 3])
def test_bottlenecks_begin_as_a_shallow_network_too(dims: int) -> None:
    encoder = ResNetEncoder(3, depth=50, width=8, spatial_dims=dims).eval()
    assert sum(isinstance(module, ResNetBottleneck) for module in encoder.modules()) == 16
    x = torch.rand(1, 256, *[4] * dims)
    with torch.no_grad():
        assert torch.equal(encoder.layer4[1:](x), x)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_papers_encoder_has_no_layer_between(kind: type[nn.Module]) -> None:
    with torch.device("meta"):
        paper, named, other = kind(3, 4), kind(3, 4, encoder="resnet34"), kind(3, 4, encoder="resnet50")
    assert list(paper.state_dict()) == list(named.state_dict())
    assert not any(key.startswith("neck") for key in paper.state_dict())
    necks = {key.split(".")[2] for key in other.state_dict() if key.startswith("neck")}
    assert necks == {"1", "2", "3", "4"}  # c1 has 64 channels there, too


def test_a_built_one_is_taken_as_it_is() -> None:
    encoder = Pyramid(3)
    network = CPFNet(3, 2, encoder=encoder, width=8)
    assert network.encoder is encoder
    assert find_encoder(network) is None
    with pytest.raises(WeightsError, match="no ResNet encoder"):
        load_imagenet(network)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"channels": (1, 2, 3, 4)}, "channels .1, 2, 3, 4.(.|\n)*5 whole numbers"),
        ({"channels": None}, "channels None"),
        ({"strides": (2, 4, 8, 16, 0)}, "5 whole numbers above 0"),
        ({"strides": (32, 16, 8, 4, 2)}, "finest first"),
    ],
)
def test_an_encoder_that_promises_too_little_is_refused(attributes: dict[str, object], message: str) -> None:
    encoder = Pyramid(3)
    for key, value in attributes.items():
        setattr(encoder, key, value)
    with pytest.raises(NetworkError, match=message):
        CPFNet(3, 2, encoder=encoder)


def test_an_encoder_that_breaks_its_promise_is_refused() -> None:
    encoder = Pyramid(3)
    encoder.channels = (5, 9, 16, 21, 34)
    with pytest.raises(NetworkError, match=r"maps of \(5, 9, 16, 21, 33\) channels, and promises"):
        CPFNet(3, 2, encoder=encoder, width=8).eval()(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CPFNet(3, 2, encoder="resnet51"), "did you mean 'resnet50'"),
        (lambda: CPFNet(3, 2, encoder=50), "encoder = 50(.|\n)*resnet18"),  # type: ignore[arg-type]
        (lambda: CPFNet(3, 2, encoder=Pyramid(3), stem_stride=1), "stem_stride = 1 is for resnet18"),
        (lambda: ResNetEncoder(3, depth=20), "depth = 20(.|\n)*34 is the paper's"),
        (lambda: register("resnet50", Pyramid), "registered already"),
        (lambda: register("own", lambda channels: None), "in_channels, \\*, spatial_dims"),  # type: ignore[arg-type]
        (lambda: register("a:b", Pyramid), "colon"),
        (lambda: zoo.build("cpfnet", 3, 2, encoder="resnet50", width=7), "even number above 0"),
    ],
)
def test_what_cannot_be_is_refused(make: object, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make()  # type: ignore[operator]


def test_the_subpixel_head_needs_a_finest_map_at_half_resolution() -> None:
    encoder = Pyramid(3)
    encoder.strides = (4, 4, 8, 16, 32)
    with pytest.raises(NetworkError, match="one pixel for 4 along each axis"):
        CPFNetHR(3, 2, encoder=encoder)


def test_code_of_an_own_encoder_is_not_looked_for_unless_allowed() -> None:
    for build in (lambda: CPFNet(3, 2, encoder="parts:Own"), lambda: zoo.build("cpfnet", 3, 2, encoder="parts:Own")):
        with pytest.raises(CodeError, match="--allow-import parts"):
            build()


def test_only_networks_whose_code_is_all_ours_are_recorded() -> None:
    assert zoo.is_shipped("cpfnet", {})
    assert zoo.is_shipped("cpfnet-hr", {"encoder": "resnet101"})
    assert not zoo.is_shipped("cpfnet", {"encoder": "parts:Own"})
    assert not zoo.is_shipped("parts:Net", {})


def test_each_encoder_finds_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CPFNET_CACHE", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("CPFNET_WEIGHTS_URL", "http://127.0.0.1:9")  # nothing is there
    files = {}
    for depth in (18, 50):
        state = {key: torch.rand(shape) for key, shape in torchvision(depth).items()}
        if depth == 50:
            state |= {"fc.weight": torch.rand(1000, 2048), "fc.bias": torch.rand(1000)}
        safetensors.torch.save_file(state, tmp_path / f"{depth}.safetensors")
        assert depth_of(tmp_path / f"{depth}.safetensors") == depth
        files[depth] = store.import_file(tmp_path / f"{depth}.safetensors")
    assert {item.path: item.encoder for item in store.verify()} == {files[18]: "resnet18", files[50]: "resnet50"}
    encoder = ResNetEncoder(1, depth=50)
    assert load_imagenet(encoder, progress=False) == files[50]
    given = safetensors.torch.load_file(files[50])
    loaded = encoder.state_dict()
    filled = [key for key in loaded if key != "conv1.weight" and not key.endswith("tracked")]
    assert all(torch.equal(loaded[key], given[key]) for key in filled)
    torch.testing.assert_close(loaded["conv1.weight"], given["conv1.weight"].sum(1, keepdim=True))
    with pytest.raises(WeightsError, match=r"not the weights of a ResNet-18 for RGB images(.|\n)*unexpected"):
        load_imagenet(ResNetEncoder(3, depth=18, width=64), files[50], progress=False)
    with pytest.raises(WeightsError, match=r"of resnet101 in(.|\n)*resnet101-63fe2227.pth"):
        store.find(encoder="resnet101", progress=False)


def test_files_are_known_by_the_digits_of_their_hash() -> None:
    known = {entry.file for entry in store.ENTRIES.values() if entry.sha256}
    assert known == {
        "resnet18-f37072fd.pth",
        "resnet34-b627a593.pth",
        "resnet34-333f7ec4.pth",
        "resnet50-0676ba61.pth",
        "resnet50-11ad3fa6.pth",
        "resnet101-63fe2227.pth",
        "resnet101-cd907fc2.pth",
    }
    assert [store.default(encoder).name for encoder in RESNETS] == [
        "resnet18-f37072fd",
        "resnet34-b627a593",
        "resnet50-0676ba61",
        "resnet101-63fe2227",
    ]
    with pytest.raises(WeightsError, match="known are those of resnet34"):
        store.default("resnet152")
