"""Weights made elsewhere: every kind of file, every way they can be wrong, and what a pretrained encoder then sees."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpfnet.errors import CpfnetError, WeightsError
from cpfnet.network import zoo
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.encoder import ResNetEncoder, find_encoder
from cpfnet.network.pretrained import store
from cpfnet.network.pretrained.load import fit_stem, import_official, load_imagenet, read_state_dict
from cpfnet.planner.proposal import PRETRAINED
from cpfnet.training import checkpoint

State = dict[str, torch.Tensor]
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(7)}


def write_old(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    "write", [torch.save, write_old, safetensors.torch.save_file], ids=["zip", "old", "safetensors"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_the_content_decides_not_the_name(write: Callable, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    write(TENSORS, path)
    found = read_state_dict(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("write", [torch.save, write_old])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_wrapping_and_prefix_are_taken_off(write: Callable, prefix: str, wrapped: bool, tmp_path: Path) -> None:
    state = {prefix + key: value for key, value in TENSORS.items()}
    write({"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapped else state, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == TENSORS.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n  <html>login</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"just some text, long enough to look at", "no weight file"),
        (b"\x80\x02 broken pickle", "more than tensors, or is damaged"),
        (b"PK\x03\x04 broken zip", "damaged or cut off"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{broken", "damaged or cut off"),
    ],
)
def test_what_is_no_weight_file_says_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "write", [torch.save, write_old, safetensors.torch.save_file], ids=["zip", "old", "safetensors"]
)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_download_is_refused(write: Callable, share: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write({"weight": torch.rand(100, 100)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="damaged or cut off"):
        read_state_dict(path)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_state_dict(tmp_path / "missing.pth")
    with pytest.raises(WeightsError, match="directory"):
        read_state_dict(tmp_path)


class Evil:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("evil",)


def plain_pickle(content: object, path: Path, protocol: int = 2) -> None:
    path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.mark.parametrize(
    "write", [torch.save, write_old, *(partial(plain_pickle, protocol=protocol) for protocol in range(6))]
)
@pytest.mark.parametrize(
    "content", [Evil(), {"a": Evil()}, {"state_dict": TENSORS, "args": Namespace(lr=0.1)}, torch.nn.Linear(2, 2)]
)
def test_code_in_a_file_is_not_run_nor_is_it_recommended(
    write: Callable, content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    write(content, path)
    for read in (read_state_dict, store.import_file, partial(load_imagenet, CPFNet(3, 2)), checkpoint.load):
        with pytest.raises(
            CpfnetError, match=r"w\.pth: (is no checkpoint of cpfnet: )?(holds more than|is no weight)"
        ) as caught:
            read(path)
        message = str(caught.value) + "".join(str(one.message) for one in recwarn)
        assert not re.search("weights.only|succeed|arbitrary|WeightsUnpickler", message, re.IGNORECASE)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "empty mapping"),
        ([1.0], "a list"),
        ({"a": torch.ones(1), "epoch": 3}, "no named tensors: epoch"),
        ({0: torch.ones(1)}, "tensors: 0"),
    ],
)
def test_what_holds_no_state_dict_is_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "w.pth")


# ---- the authors' checkpoints --------------------------------------------------------------------------------------


def test_an_official_checkpoint_loads_however_it_is_wrapped(official_state: State) -> None:
    plain = import_official(official_state)
    CPFNet(3, 4).load_state_dict(plain)
    wrapped = import_official({"state_dict": {f"module.{key}": value for key, value in official_state.items()}})
    assert all(torch.equal(plain[key], wrapped[key]) for key in plain)
    old = import_official({k: v for k, v in official_state.items() if not k.endswith("num_batches_tracked")})
    assert old.keys() == plain.keys()


def test_only_what_the_authors_never_call_may_lack(official_state: State) -> None:
    kept = {id(value) for value in import_official(official_state).values()}
    dropped = {key for key, value in official_state.items() if id(value) not in kept}
    rest = {key: value for key, value in official_state.items() if key not in dropped}
    assert import_official(rest).keys() == import_official(official_state).keys()
    never_called = re.compile(
        r"backbone\.fc|decoder[2-5]\.sap|decoder5\.conv_3x3|sap\.conv1x1\.1|sap\.conv3x3_1\.1|sap\.conv3x3_2\.1"
    )
    assert all(never_called.match(key) for key in dropped)
    assert sum(official_state[key].numel() for key in dropped if "running" not in key and "num_" not in key) == (
        43_269_957 - 30_650_823
    )
    for key in ("mce_3.dilation2.0.conv1.weight", "backbone.layer4.2.bn2.running_var"):
        with pytest.raises(WeightsError, match=f"missing: {re.escape(key)}"):
            import_official({k: v for k, v in rest.items() if k != key})


def test_unexpected_keys_and_shapes_are_named(official_state: State) -> None:
    with pytest.raises(WeightsError, match=r"unexpected: decoder4\.extra\.weight"):
        import_official(official_state | {"decoder4.extra.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"sap\.gamma is \[2\] instead of \[1\]"):
        import_official(official_state | {"sap.gamma": torch.ones(2)})
    with pytest.raises(WeightsError, match="missing"):
        import_official({"conv1.weight": torch.ones(1)})


def test_channels_and_classes_follow_the_checkpoint(official_state: State) -> None:
    state = official_state | {
        "backbone.conv1.weight": torch.rand(64, 1, 7, 7),
        "main_head.conv_1x1_2.weight": torch.rand(2, 32, 1, 1),
        "main_head.conv_1x1_2.bias": torch.rand(2),
    }
    CPFNet(1, 2).load_state_dict(import_official(state))


# ---- ImageNet ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> ResNetEncoder:
    """Stands for the pretrained RGB network: statistics and scales other than the initial ones."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(3).eval()
    for key, value in encoder.state_dict().items():
        if key.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.8, 1.2)
        elif key.endswith("bn2.weight"):  # from scratch they are zero
            value.uniform_(0.5, 1.5)
    return encoder


@pytest.fixture(scope="module")
def imagenet_file(resnet: ResNetEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchvision's first release: not a ZIP, no counters, with the classifier."""
    state = {key: value for key, value in resnet.state_dict().items() if not key.endswith("num_batches_tracked")}
    path = tmp_path_factory.mktemp("imagenet") / "resnet34.pth"
    write_old(state | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}, path)
    return path


def features(encoder: ResNetEncoder, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder(x)[-1]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_a_grey_image_gives_what_its_rgb_copy_would(channels: int, resnet: ResNetEncoder, imagenet_file: Path) -> None:
    encoder = ResNetEncoder(channels).eval()
    load_imagenet(encoder, imagenet_file)
    grey = torch.rand(1, 1, 64, 80)
    expected = features(resnet, grey.repeat(1, 3, 1, 1))
    found = features(encoder, grey.repeat(1, channels, 1, 1))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_stack_of_equal_colour_slices_gives_what_one_would(resnet: ResNetEncoder, imagenet_file: Path) -> None:
    network = zoo.build("cpfnet-guide", 9, 2).eval()
    load_imagenet(network, imagenet_file)
    colour = torch.rand(1, 3, 64, 80)
    torch.testing.assert_close(
        features(network.encoder, colour.repeat(1, 3, 1, 1)), features(resnet, colour), atol=1e-4, rtol=1e-4
    )


@given(channels=st.integers(1, 24))
def test_any_channel_count_keeps_the_sum_of_the_filters(channels: int) -> None:
    weight = torch.rand(4, 3, 7, 7)
    fitted = fit_stem(weight, channels)
    assert fitted.shape == (4, channels, 7, 7)
    torch.testing.assert_close(fitted.sum(1), weight.sum(1))


def test_a_volume_constant_in_depth_gives_what_its_slice_gives(resnet: ResNetEncoder, imagenet_file: Path) -> None:
    encoder = ResNetEncoder(1, spatial_dims=3).eval()
    load_imagenet(encoder, imagenet_file)
    plane = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        flat = resnet(plane.repeat(1, 3, 1, 1))
        deep = encoder(plane.unsqueeze(2).repeat(1, 1, 72, 1, 1))
    for level in (0, 1):  # far from the border in depth; deeper levels see it everywhere
        middle = deep[level][:, :, deep[level].shape[2] // 2]
        torch.testing.assert_close(middle, flat[level], atol=1e-4, rtol=1e-4)


def test_the_unet_on_the_same_encoder_takes_them_too(resnet: ResNetEncoder, imagenet_file: Path) -> None:
    network = zoo.build("resnet34-unet", 3, 2).eval()
    load_imagenet(network, imagenet_file)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(features(network.network.encoder, x), features(resnet, x))


@pytest.mark.parametrize("name", zoo.names())
def test_the_planner_knows_which_networks_imagenet_weights_fit(name: str, imagenet_file: Path) -> None:
    with torch.device("meta"):
        network = zoo.build(name, 3, 2)
    assert (find_encoder(network) is not None) == (name in PRETRAINED)
    if name not in PRETRAINED:
        with pytest.raises(WeightsError, match="no ResNet encoder"):
            load_imagenet(network, imagenet_file)


def test_a_narrow_encoder_is_refused(imagenet_file: Path) -> None:
    network = CPFNet(3, 2, width=16)
    with pytest.raises(
        WeightsError,
        match=r"64 channels at the first level, and this CPFNet 16(.|\n)*width=64, or train from scratch",
    ):
        load_imagenet(network, imagenet_file)


def test_another_networks_file_is_refused_by_its_keys(resnet: ResNetEncoder, tmp_path: Path) -> None:
    state = {key: value for key, value in resnet.state_dict().items() if not key.startswith("layer4.2")}
    safetensors.torch.save_file(state | {"layer5.weight": torch.ones(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_imagenet(CPFNet(3, 2), tmp_path / "resnet.safetensors")
    for words in ("layer4.2.conv1.weight", "unexpected: layer5.weight", "resnet.safetensors", "ResNet-34"):
        assert words in str(caught.value)


def test_a_compressed_torch_file_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as whole,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in whole.namelist():
            out.writestr(name, bytes(2**24) if name.endswith("data/0") else whole.read(name))
    with pytest.raises(WeightsError, match="is compressed"):
        read_state_dict(tmp_path / "b.pth")


def test_a_pipe_is_no_weight_file(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="device or a pipe"):
        read_state_dict(tmp_path / "a.pth")
