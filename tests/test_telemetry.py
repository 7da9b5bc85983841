"""No command, and no library that it loads, reports to anybody or writes in hidden places, judged by its system calls.

A guard inside Python would not see what compiled libraries do; and some are silent where the variable CI is set, so it
is not, here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.inference.torch_backend.test_quantise_int8 import bright_spots, spotting  # noqa: F401 (a fixture)

TRACED = (
    "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat"
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")]

COMMANDS = """
import json, sys
from cpfnet.cli.app import main
from cpfnet.network import zoo
from tests.inference.torch_backend.test_onnx_graph import Tiny

zoo.register("tiny", Tiny)
for command in json.loads(sys.argv[1]):
    sys.argv = ["cpfnet", *command]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, command
"""


BUNDLE = """
from monai.bundle import run
import tests.inference.torch_backend.test_onnx_graph as networks

networks.zoo.register("tiny", networks.Tiny)
run(config_file="bundle/configs/inference.json", bundle_root="bundle", dataset_dir="data/images/1.png")
"""
"""MONAI is loaded before cpfnet."""


SERVER = """
import os, signal, threading, urllib.request
from pathlib import Path
from cpfnet.api import serve
from cpfnet.serve.options import ServeOptions

def ask(address):
    image = Path("data/images/0.png").read_bytes()
    with urllib.request.urlopen(f"{address}/api/v1/jobs?name=0.png&force=true&wait=60", image) as answer:
        assert b'"done"' in answer.read()
    os.kill(os.getpid(), signal.SIGTERM)

def started(address, entrance):
    threading.Thread(target=ask, args=(address,)).start()

serve("model", ServeOptions(port=0, backend="openvino", device="cpu"), started=started)
"""
"""A worker is a process of its own."""


class Trace:
    """What a child and its children did.

    Attributes:
        connections: lines of the trace with a peer that is not a socket of this machine.
        written: files and folders that were made, or opened to be written.
    """

    def __init__(self, log: Path, work: Path):
        lines = log.read_text(errors="replace").splitlines()
        peers = [line for line in lines if re.search(r"sa_family=AF_(?!UNIX|NETLINK|UNSPEC)", line)]
        own = re.compile(r'sin_addr=inet_addr\("127\.|inet_pton\(AF_INET6, "(::1|::ffff:127\.[\d.]+)"')
        self.connections = [
            line for line in peers if not own.search(line) or re.search(r"sin6?_port=htons\(53\)", line)
        ]
        # A call that others interrupt stands on two lines, and the first has no result.
        made = [line for line in lines if not re.search(r"= -1 E\w+", line)]
        made = [line for line in made if re.search(r" (mkdir|rename|link|symlink|creat)|O_WRONLY|O_RDWR|O_CREAT", line)]
        names = [re.findall(r'"((?:[^"\\]|\\.)*)"', line)[-1] for line in made if '"' in line]
        self.written = {Path(os.path.normpath(work / name)) for name in names}

    def outside(self, *folders: Path) -> set[str]:
        """What was written neither in these folders nor is one of those that they lie in."""
        inside = {path for path in self.written for folder in folders if path.is_relative_to(folder)}
        above = {parent for folder in folders for parent in folder.parents}
        return {str(path) for path in self.written - inside - above}


def path_with_tests() -> str:
    """Child processes import the network of these tests, wherever they run."""
    return os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def traced(root: Path, *program: str, **variables: str) -> Trace:
    """Run Python in ``root/work``, with an empty home and temporary folder, and without the variable CI."""
    for name in ("home", "tmp", "work"):
        (root / name).mkdir(exist_ok=True)
    unset = (
        "CI",
        "ORT_DISABLE_TELEMETRY",
        "NNCF_CI",
        "NNCF_DEV",
        "PYTEST_CURRENT_TEST",
        "XDG_CACHE_HOME",
        "MPLCONFIGDIR",
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in unset and not name.startswith("RAY_")
    }
    environment |= {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"PYTHONPATH": path_with_tests()} | variables
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "4096", "-e", "signal=none", "-e", f"trace={TRACED}"]
    command = [*strace, "-o", str(root / "log"), sys.executable, *program]
    done = subprocess.run(command, cwd=root / "work", env=environment, capture_output=True, text=True, timeout=400)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this machine lets nobody trace")
    assert done.returncode == 0, done.stdout + done.stderr
    return Trace(root / "log", root / "work")


def documented(root: Path) -> list[Path]:
    """Where docs/how-to/install.md says that files are written, and what is no file."""
    matplotlib = [root / "home" / folder / "matplotlib" for folder in (".cache", ".config")]
    return [root / "work", root / "tmp", *matplotlib, Path("/dev"), Path("/proc")]


@pytest.fixture
def root(spotting) -> Iterator[Path]:  # noqa: F811
    """A dataset and a Model, in the folder where commands run. Sockets lie in it, whose names may not be long."""
    with TemporaryDirectory(prefix="cpfnet-") as folder:
        (Path(folder) / "work").mkdir()
        bright_spots(Path(folder) / "work" / "data")
        shutil.move(spotting.folder, Path(folder) / "work" / "model")
        yield Path(folder)


def test_the_commands_connect_to_nobody_and_write_only_where_they_should(root: Path) -> None:
    options = [
        "network.name=unet",
        "network.options={widths: [4, 4, 8, 8, 8]}",
        "network.weights=none",
        "training.epochs=1",
    ]
    options += ["training.samples=4", "training.batch=2", "training.workers=1", "training.warmup=0"]
    settings = [part for value in options for part in ("--set", value)]
    backends = ("torch", "torch-bf16", "onnx", "openvino", "openvino-int8", "auto")
    commands = [
        ["doctor"],
        ["check", "data"],
        ["plan", "data", "-o", "plan.yaml", *settings],
        ["train", "data", "-o", "trained", "--plan", "plan.yaml", "--device", "cpu"],
        ["export", "model", "--to", "onnx"],
        ["export", "model", "--to", "openvino", "-o", "vessels.xml"],
        ["export", "model", "--to", "openvino-int8", "--data", "data"],
        ["export", "model", "--to", "bundle", "-o", "bundle"],
        *(["predict", "model", "data/images/0.png", "-o", name, "--backend", name, "--force"] for name in backends),
        ["evaluate", "data", "model", "-o", "scores"],
        ["evaluate", "data", "model", "-o", "others"],
        ["compare", "scores", "others", "-o", "comparison"],
        ["convert", "data", "-o", "converted", "--to", "nnunet"],
        ["weights", "list"],
        ["weights", "verify"],
    ]
    trace, bundle = traced(root, "-c", COMMANDS, json.dumps(commands)), traced(root, "-c", BUNDLE)
    exporter = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1", "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    server = traced(root, "-c", SERVER, **exporter)
    assert (trace.connections, bundle.connections, server.connections) == ([], [], [])
    for one in (trace, bundle, server):
        assert one.outside(*documented(root)) == set()
    assert root / "work" / "openvino-int8" / "0.png" in trace.written  # it does see what is written
    assert root / "work" / "bundle" / "masks" / "1.png" in bundle.written
    assert root / "work" / "cpfnet-serve" / "jobs.sqlite" in server.written


def test_a_cluster_on_this_machine_connects_to_nobody_else(root: Path) -> None:
    pytest.importorskip("ray")
    command = ["predict", "model", "data/images", "-o", "masks", "--backend", "openvino", "--engine", "ray", "--force"]
    subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps([["export", "model", "--to", "onnx"]])],
        cwd=root / "work",
        env=os.environ | {"PYTHONPATH": path_with_tests()},
        check=True,
    )
    with TemporaryDirectory(prefix="ray") as short:  # sockets lie in it, whose names may not be long
        trace = traced(root, "-c", COMMANDS, json.dumps([command]), RAY_TMPDIR=short)
    assert trace.connections == []
    assert trace.outside(*documented(root), root / "home" / ".ray", Path(short)) == set()


def test_the_trace_would_show_a_connection(tmp_path: Path) -> None:
    """To a machine that does not exist, a resolver, and this one; and a file at home."""
    program = """
import os, pathlib, socket
for address in (("192.0.2.1", 80), ("127.0.0.53", 53), ("127.0.0.1", 9)):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(address)
pathlib.Path.home().joinpath("id").write_text("x")
"""
    trace = traced(tmp_path, "-c", program)
    assert [re.findall(r'inet_addr\("([\d.]+)"', line) for line in trace.connections] == [["192.0.2.1"], ["127.0.0.53"]]
    assert trace.outside(tmp_path / "work", tmp_path / "tmp") == {str(tmp_path / "home" / "id")}
