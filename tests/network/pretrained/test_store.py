"""Weight files: found in every cache, imported when right, downloaded through cuts, refused when wrong."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import cpfnet
from cpfnet.errors import OutputError, WeightsError
from cpfnet.network.pretrained import download as downloading
from cpfnet.network.pretrained import store

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server:
    """A real HTTP server on this machine that answers each request with the next of `answers`; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "ATTEMPTS", 3)  # the waits between more of them add nothing here
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CPFNET_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("CPFNET_WEIGHTS_URL", "http://127.0.0.1:9")  # nothing listens: offline
    return tmp_path


def serve(content: bytes = CONTENT, *, until: float = 1.0, ranges: bool = True, shift: int = 0, status: int = 0):
    """An answer: ``content``, cut at a fraction of the request, with, without, or with wrong support of ranges."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        start = int(asked[1]) if asked and ranges else 0
        if status:
            handler.send_error(status)
            return
        if start >= len(content) > 0 and asked and ranges:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = content[start:]
        handler.send_response(206 if asked and ranges else 200)
        handler.send_header("Content-Length", str(len(body)))
        if asked and ranges:
            handler.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(body[: round(len(body) * until)])

    return answer


def fetch(server: Server, target: Path, digits: str = DIGITS) -> None:
    downloading.fetch(f"{server.url}/{target.name}", target, digits, progress=False)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_cut_at_60_percent_is_resumed(server: Server, tmp_path: Path) -> None:
    server.answers = [serve(until=0.6), serve()]
    fetch(server, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={round(len(CONTENT) * 0.6)}-"]
    assert visible(tmp_path) == ["w.pth"]


def test_cut_then_another_content_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.answers = [serve(until=0.6), serve(bytes(len(CONTENT)))]
    with pytest.raises(WeightsError, match=f"expected {DIGITS}; it was removed"):
        fetch(server, tmp_path / "w.pth")
    assert server.ranges[1] == f"bytes={round(len(CONTENT) * 0.6)}-"
    assert visible(tmp_path) == []


def test_goes_on_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.answers = [serve(until=0.5), serve(until=0.0)]
    with pytest.raises(WeightsError, match="goes on after the 524,288 bytes"):
        fetch(server, tmp_path / "w.pth")
    assert visible(tmp_path) == ["w.pth.part"]
    server.ranges, server.answers = [], [serve()]
    fetch(server, tmp_path / "w.pth")
    assert server.ranges == ["bytes=524288-"]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("second", [serve(ranges=False), serve(shift=7)], ids=["ignores Range", "wrong Content-Range"])
def test_a_server_that_cannot_resume(server: Server, tmp_path: Path, second: Callable) -> None:
    server.answers = [serve(until=0.6), second, serve(ranges=False)]
    fetch(server, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more"], ids=["whole", "longer than the file"])
def test_a_part_after_which_nothing_follows(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "w.pth.part").write_bytes(left)
    server.answers = [serve()]
    fetch(server, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_server_error_is_tried_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    server.answers = [serve(status=503), serve()]
    fetch(server, tmp_path / "w.pth")
    server.ranges, server.answers = [], [serve(status=404)]
    with pytest.raises(WeightsError, match="404"):
        fetch(server, tmp_path / "other.pth")
    assert len(server.ranges) == 1


def test_what_is_there_is_not_fetched_again_but_damage_is_replaced(server: Server, tmp_path: Path) -> None:
    server.answers = [serve()]
    (tmp_path / "w.pth").write_bytes(CONTENT)
    fetch(server, tmp_path / "w.pth")
    assert server.ranges == []
    (tmp_path / "w.pth").write_bytes(CONTENT[:-1])
    fetch(server, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_two_at_once_share_one_download(server: Server, tmp_path: Path) -> None:
    server.answers = [serve()]
    threads = [threading.Thread(target=fetch, args=(server, tmp_path / "w.pth")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_a_place_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    server.answers = [serve()]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="CPFNET_CACHE"):
        fetch(server, tmp_path / "file" / "w.pth")


@pytest.mark.parametrize("address", ["ftp://example.org", "models", ""])
def test_an_address_that_is_none(address: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="CPFNET_WEIGHTS_URL"):
        downloading.fetch(f"{address}/w.pth", tmp_path / "w.pth", DIGITS, progress=False)


def test_download_refuses_a_known_file_with_a_wrong_hash(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [serve()]
    monkeypatch.setenv("CPFNET_WEIGHTS_URL", server.url + "/")
    for url in (None, server.url):
        with pytest.raises(WeightsError, match=f"begins with {DIGITS}, expected b627a593"):
            store.download(url=url, progress=False)
    assert visible(store.cache_folder()) == []


def test_download_names_what_is_known() -> None:
    with pytest.raises(WeightsError, match="resnet34-333f7ec4"):
        store.download("resnet152")
    with pytest.raises(WeightsError, match=r"hf download timm/resnet34\.a1_in1k"):
        store.download("timm/resnet34.a1_in1k")


def test_offline_says_what_to_fetch_from_where_and_where_to_put_it(caches: Path, monkeypatch) -> None:
    monkeypatch.delenv("CPFNET_WEIGHTS_URL")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody gets out
    with pytest.raises(WeightsError) as error:
        store.find(progress=False)
    text = str(error.value)
    for part in (
        "https://download.pytorch.org/models/resnet34-b627a593.pth",
        str(caches / "own" / "weights"),
        str(caches / "torch" / "hub" / "checkpoints"),
        str(caches / "hf" / "hub"),
        "cpfnet weights import",
        "--weights none",
    ):
        assert part in text


def resnet34(**changes: tuple[int, ...] | None) -> dict:
    """Zeros with the keys and shapes of torchvision's file, where its keys are MONAI's (with the classifier)."""
    import torch
    from monai.networks.nets import resnet34 as network

    with torch.device("meta"):
        net = network(spatial_dims=2, n_input_channels=3, bias_downsample=False, num_classes=1000)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()} | changes
    return {key: torch.zeros(shape) for key, shape in shapes.items() if shape is not None}


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import safetensors.torch

    file = tmp_path_factory.mktemp("given") / "model.safetensors"
    safetensors.torch.save_file(resnet34(), file)
    return file


def test_import_names_the_copy_by_its_hash_and_find_takes_it(weight_file: Path) -> None:
    digest = hashlib.sha256(weight_file.read_bytes()).hexdigest()
    copy = store.import_file(weight_file)
    assert copy == store.cache_folder() / f"model-{digest[:8]}.safetensors"
    assert copy.read_bytes() == weight_file.read_bytes()
    assert store.import_file(copy) == copy
    assert [path.name for path in store.cache_folder().iterdir()] == [copy.name]
    assert store.find() == copy

    damaged = bytearray(copy.read_bytes())
    damaged[-1] ^= 1
    copy.write_bytes(damaged)
    (found,) = store.verify()
    assert found.place == "cpfnet"
    assert "SHA-256" in str(found.problem)
    with pytest.raises(WeightsError, match="damaged"):
        store.find(progress=False)


@pytest.mark.parametrize("name", ["CPFNet", "CPFNetHR", "GuideCPFNet"])
def test_load_imagenet_takes_a_verified_file_from_the_cache(name: str, tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    counters = {key: torch.tensor(7) for key in resnet34() if key.endswith("num_batches_tracked")}
    state = {key: torch.randn(value.shape) for key, value in resnet34().items()} | counters
    safetensors.torch.save_file(state, tmp_path / "mine.safetensors")
    copy = store.import_file(tmp_path / "mine.safetensors")
    network = getattr(cpfnet, name)(in_channels=3, classes=2)
    assert cpfnet.load_imagenet(network) == copy
    loaded = network.encoder.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)

    damaged = bytearray(copy.read_bytes())
    damaged[-1] ^= 1
    copy.write_bytes(damaged)
    for given in ({}, {"weights": copy}):  # found or named
        with pytest.raises(WeightsError, match="damaged") as caught:
            cpfnet.load_imagenet(network, progress=False, **given)
        assert caught.value.fix
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


def test_load_imagenet_downloads_and_verifies(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    torch.save(resnet34(), tmp_path / "theirs.pth")
    content = (tmp_path / "theirs.pth").read_bytes()
    server.answers = [serve(content)]
    monkeypatch.setenv("CPFNET_WEIGHTS_URL", server.url)
    network = cpfnet.CPFNet(in_channels=1, classes=2)
    with pytest.raises(WeightsError, match="b627a593"):  # what came is not what the name promises
        cpfnet.load_imagenet(network, progress=False)
    digits = hashlib.sha256(content).hexdigest()[:8]
    made = store.Entry("resnet34-b627a593", "resnet34", "resnet34-made.pth", "made", digits)
    monkeypatch.setitem(store.ENTRIES, "resnet34-b627a593", made)
    assert cpfnet.load_imagenet(network, progress=False) == store.cache_folder() / "resnet34-made.pth"
    assert not network.encoder.conv1.weight.any()


def test_load_imagenet_downloads_nothing_that_would_not_fit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPFNET_WEIGHTS_URL", server.url)
    with pytest.raises(WeightsError, match="64 channels at the first level"):
        cpfnet.load_imagenet(cpfnet.CPFNet(3, 2, width=32), progress=False)
    assert not server.ranges


def test_load_imagenet_offline_says_how(caches: Path) -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights of resnet34 in") as caught:
        cpfnet.load_imagenet(cpfnet.CPFNet(3, 2), progress=False)
    assert "cpfnet weights import" in str(caught.value.fix)


def test_huggingface_cache_is_looked_through(caches: Path, weight_file: Path) -> None:
    repository = caches / "hf" / "hub" / "models--timm--resnet34.a1_in1k"
    blob = repository / "blobs" / hashlib.sha256(weight_file.read_bytes()).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(weight_file.read_bytes())
    snapshot = repository / "snapshots" / "0123abc" / "model.safetensors"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob)
    assert store.find() == snapshot
    assert [(item.place, item.problem) for item in store.verify()] == [("huggingface", None)]
    blob.write_bytes(blob.read_bytes()[:-4])
    assert "SHA-256" in str(store.verify()[0].problem)


def test_torch_hub_file_that_is_damaged_is_not_used(caches: Path) -> None:
    file = caches / "torch" / "hub" / "checkpoints" / "resnet34-333f7ec4.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"resnet34-333f7ec4\.pth is damaged or another file.*expected 333f7ec4"):
        store.find(progress=False)
    with pytest.raises(WeightsError, match="expected 333f7ec4"):
        store.find(file)
    with pytest.raises(WeightsError, match="expected 333f7ec4"):
        store.import_file(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer3.2.conv1.weight": None}, "missing: layer3.2.conv1.weight"),
        ({"conv1.weight": (64, 1, 7, 7)}, "conv1.weight is [64, 1, 7, 7] instead of [64, 3, 7, 7]"),
    ],
)
def test_import_refuses_other_networks(tmp_path: Path, changes: dict, message: str) -> None:
    import torch

    file = tmp_path / "resnet34-20230101.pth"  # a date, not a hash
    torch.save(resnet34(**changes), file)
    with pytest.raises(WeightsError, match=re.escape(message)):
        store.import_file(file)
    assert not store.cache_folder().exists()


@pytest.mark.parametrize("name", ["text.pth", "absent.pth", "folder", "text.txt"])
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("no weights")
    elif name == "folder":
        (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match=name):
        store.import_file(tmp_path / name)
