"""The commands as a user meets them: the whole way, and what happens when something is wrong."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cpfnet as cpfnet_package
from cpfnet.cli.app import main
from cpfnet.errors import CpfnetError
from tests.inference.batch.test_run import tree
from tests.synthetic import make_images_dataset

SMALL = [
    "--set",
    "network.name=unet",
    "--set",
    "network.options={widths: [8, 8, 16, 16, 32]}",
    "--set",
    "training.workers=0",
]
SHORT = [
    "--set",
    "training.samples=24",
    "--set",
    "training.batch=8",
    "--set",
    "training.warmup=0",
    "--set",
    "training.learning_rate=0.01",
]


def cpfnet(*arguments, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-c", "from cpfnet.cli.app import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        timeout=300,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A dataset, and everything that the commands make of it."""
    root = tmp_path_factory.mktemp("work")
    make_images_dataset(root / "data", cases=8, size=(64, 64), roi=True)
    for step in (
        ["check", "data"],
        ["plan", "data", "-o", "plan.yaml", *SMALL, *SHORT, "--preview", "preview.png"],
        ["train", "data", "-o", "model", "--plan", "plan.yaml", "--epochs", 3, "--device", "cpu"],
        ["predict", "model", "data/images", "-o", "masks", "--overlays", "--probabilities", "--tta"],
        ["evaluate", "data", "masks", "-o", "scores"],
    ):
        done = cpfnet(*step, cwd=root)
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
        assert "\n\n" not in f"\n{done.stderr}", f"{step}\n{done.stderr}"  # bars leave nothing in files and pipes
    return root


def test_the_whole_way_leaves_what_it_promises(work):
    for name in ("plan.yaml", "weights.safetensors", "fitted.yaml", "metrics.json", "card.md", "report.html"):
        assert (work / "model" / name).stat().st_size > 0
    assert Image.open(work / "preview.png").size[0] > 500
    images, masks = sorted((work / "data/images").iterdir()), sorted((work / "masks").glob("*.png"))
    assert [m.name for m in masks] == [i.name for i in images]
    for image, mask in zip(images, masks, strict=True):
        values = np.asarray(Image.open(mask))
        assert values.shape == np.asarray(Image.open(image)).shape[:2]
        assert set(np.unique(values)) <= {0, 255}  # the data set's own values
    assert len(list((work / "masks/overlays").iterdir())) == len(images)
    assert len(list((work / "masks/probabilities").iterdir())) == len(images)
    scores = json.loads((work / "scores/scores.json").read_text())
    dice = next(a for a in scores["aggregates"] if a["metric"] == "dice" and a["class"] == "foreground")
    assert dice["count"] == 8
    assert dice["mean"] > 0.5  # bright blobs are learned in seconds
    page = (work / "scores/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")  # self-contained
    assert "https://" not in page.replace("https://www.w3.org", "")


def test_a_plan_gives_no_reason_for_what_was_asked_for(work, tmp_path):
    done = cpfnet("plan", work / "data", "-o", tmp_path / "plan.yaml", "--weights", "none", "--set", "training.batch=3")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "plan.yaml").read_text().splitlines()
    batch = next(number for number, line in enumerate(lines) if line.startswith("  batch: 3"))
    assert lines[batch - 1] == "  # as asked for"
    assert "an optimiser step" not in "\n".join(lines)


def test_the_report_of_a_training_says_how_its_model_decides(work):
    page = (work / "model/report.html").read_text()
    assert "the model&#39;s own" in page or "the model's own" in page
    assert "foreground above 0." in page
    assert "{" + "'threshold'" not in page.replace("&#39;", "'")


def test_a_model_is_evaluated_as_its_own_masks_are(work, tmp_path):
    done = cpfnet("evaluate", work / "data", work / "model", "-o", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    assert "the model was trained on" in done.stderr  # it is told that these are no unseen cases
    written = json.loads((tmp_path / "scores/scores.json").read_text())
    assert "scores are optimistic" in written["warnings"][0]
    assert "scores are optimistic" in (tmp_path / "scores/report.html").read_text()
    own = written["aggregates"]
    assert next(a for a in own if a["metric"] == "dice" and a["class"] == "foreground")["mean"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "nowhere"),
        (["plan", "data", "-o", "plan.yaml"], "exists already"),
        (["plan", "data", "-o", "new.yaml", "--network", "unett"], "did you mean"),
        (["train", "data", "-o", "model", "--weights", "none"], "--resume"),
        (["train", "data", "-o", "new", "--plan", "plan.yaml", "--set", "training.btch=3"], "did you mean 'batch'?"),
        (["train", "data", "-o", "new", "--plan", "plan.yaml", "--network", "unett"], "did you mean"),
        (["plan", "data", "-o", "new.yaml", "--set", "network.options.widht=16"], "no option 'widht'"),
        (["plan", "data", "-o", "new.yaml", "--network", "cpfnet", "--set", "network.options.width=17"], "width"),
        (["plan", "data", "-o", "new.yaml", "--set", "training.loss.options.smoth=1"], "no option 'smoth'"),
        (
            [
                "plan",
                "data",
                "-o",
                "new.yaml",
                "--network",
                "cpfnet",
                "--weights",
                "imagenet",
                "--set",
                "network.options.width=16",
            ],
            "ImageNet weights have 64 channels",
        ),
        (["plan", "missing", "-o", "new.yaml", "--set", "training.btch=3"], "did you mean 'batch'?"),
        (["train", "missing", "-o", "new", "--set", "training.btch=3"], "did you mean 'batch'?"),
        (["train", "data", "-o", "new", "--plan", "plan.yaml", "--fold", "17"], "fold"),
        (["train", "data", "-o", "new", "--plan", "plan.yaml", "--device", "tpu"], "device"),
        (["train", "data", "-o", "new", "--plan", "data/images"], "plan.yaml"),
        (["predict", "data", "data/images", "-o", "out"], "no Model"),
        (["predict", "model", "data/images", "-o", "masks"], "exists already"),
        (["predict", "model", "-o", "masks"], "no input"),
        (["predict", "data", "model", "data/images", "-o", "out"], "data: stands before a Model"),
        (["predict", "modle", "model", "data/images", "-o", "out"], "did you mean the Model 'model'?"),
        (["predict", "model", "modell", "data/images", "-o", "out"], "did you mean the Model 'model'?"),
        (["evaluate", "data", "masks", "-o", "plan.yaml/scores"], "cannot be written"),
        (["evaluate", "data", "data/images", "-o", "out"], "data/images"),
        (["evaluate", "data", "masks", "-o", "scores"], "exists already"),
        (["evaluate", "data", "masks", "--split", "test"], "--split all"),
        (["evaluate", "data", "masks", "--threshold-on", "train"], "give the Model instead"),
        (["evaluate", "data", "model", "--threshold-on", "test"], "what is scored chooses nothing"),
        (["plan", "data", "-o", "new.yaml", "--weights", "non"], "'non' is neither 'imagenet' nor 'none'"),
        (["weights", "import", "plan.yaml"], "plan.yaml"),
        (["weights", "path"], "cpfnet weights download"),
    ],
)
def test_what_cannot_be_ends_in_one_message(work, tmp_path, monkeypatch, capsys, arguments, message):
    for name in ("CPFNET_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["cpfnet", *arguments])
    before = sorted(work.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    output = "".join(capsys.readouterr())
    assert message in output
    assert "Traceback" not in output
    assert sorted(work.rglob("*")) == before  # nothing half-written


def test_one_bad_input_does_not_stop_the_others(work, tmp_path):
    (tmp_path / "text.png").write_text("this is no picture")
    Image.fromarray(np.zeros((70, 50), np.uint8)).save(tmp_path / "grey.png")
    shutil.copy(next((work / "data/images").iterdir()), tmp_path / "good.png")
    done = cpfnet("predict", work / "model", tmp_path, tmp_path / "missing.png", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert tree(tmp_path / "out") == ["good.png", "quality.csv"]
    for name in ("text.png", "grey.png", "missing.png"):
        assert name in done.stdout
    assert "1 of 4 done" in done.stderr


def test_few_predictions_are_one_error_not_many(work, tmp_path):
    shutil.copy(min((work / "masks").glob("*.png")), tmp_path)
    done = cpfnet("evaluate", work / "data", tmp_path)
    assert done.returncode == 1
    assert "7 of 8 cases have no prediction: case_01" in done.stderr
    assert done.stderr.count("--allow-missing") == 1


def test_lines_are_not_broken_in_pipes(work, tmp_path):
    long = tmp_path / ("a_very_long_folder_name_" * 5)
    long.mkdir()
    (long / "text.png").write_text("this is no picture")
    done = cpfnet("predict", work / "model", long, "-o", tmp_path / "out", env={"COLUMNS": "80"})
    assert str(long / "text.png") in done.stdout


def test_a_model_that_lacks_a_part_is_named(work, tmp_path):
    shutil.copytree(work / "model", tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    done = cpfnet("predict", tmp_path / "model", work / "data/images", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "weights.safetensors missing" in done.stderr


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path):
    make_images_dataset(tmp_path / "data", cases=4)
    mask = sorted((tmp_path / "data/masks").iterdir())[1]
    Image.fromarray(np.zeros((64, 60), np.uint8)).save(mask)
    done = cpfnet("check", tmp_path / "data")
    assert done.returncode == 1
    assert mask.name in done.stdout
    assert "64×60" in done.stdout
    assert "64×64" in done.stdout


def test_check_speaks_json(work):
    done = cpfnet("check", work / "data", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == []


def test_a_defect_of_ours_is_reported_without_a_traceback(tmp_path):
    code = (
        "import cpfnet.api, cpfnet.cli.app, sys\n"
        "cpfnet.api.check = lambda *a, **k: 1 / 0\n"
        "sys.argv = ['cpfnet', 'check', '.']\n"
        "cpfnet.cli.app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "CPFNET_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["doctor", "check", "plan", "train", "predict", "evaluate", "compare", "convert", "demo"]
)
def test_every_command_has_examples(command):
    message = cpfnet(command, "--help").stdout
    assert f"cpfnet {command}" in message.partition("Examples:")[2]


@pytest.mark.parametrize("command", ["list", "import", "verify", "download", "path"])
def test_every_weights_command_has_examples(command):
    message = cpfnet("weights", command, "--help").stdout
    assert f"cpfnet weights {command}" in message.partition("Examples:")[2]


def test_the_version_is_that_of_the_installed_package():
    assert cpfnet("--version").stdout == f"cpfnet {version('cpfnet')}\n"


def test_the_verbs_are_in_the_package():
    import cpfnet as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.no_such_name  # noqa: B018


def test_a_notebook_can_do_what_the_commands_do(work, tmp_path):
    import cpfnet as package

    scan = sorted((work / "data/images").iterdir())[0]
    segmentation = package.predict(work / "model", scan)
    written = package.write(segmentation, tmp_path / "mask.png")
    assert np.array_equal(np.asarray(Image.open(written)), segmentation.array)
    assert package.check(work / "data") == []
    assert Path(package.Model.load(work / "model").folder) == work / "model"


def test_a_defect_quotes_no_values(tmp_path):
    code = (
        "import cpfnet.api, cpfnet.cli.app, sys\n"
        "def check(*a, **k): raise ValueError(\"Unable to convert 'Muster^Erika' to 'DA' object\")\n"
        "cpfnet.api.check = check\nsys.argv = ['cpfnet', 'check', '.']\ncpfnet.cli.app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "ValueError: Unable to convert … to … object" in done.stderr
    assert "Erika" not in done.stdout + done.stderr


def test_the_folder_one_stands_in_is_called_so():
    assert str(CpfnetError("no labelled case", where=Path())) == "this folder: no labelled case"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("pred", {"predict"}),
        ("predict --over", {"--overlays", "--overlap", "--overwrite"}),
        ("predict --format dicom", {"dicom-seg", "dicom-labelmap"}),
        ("weights im", {"import"}),
    ],
)
def test_bash_completes_commands_and_options(tmp_path, typed, expected):
    command = Path(sys.executable).with_name("cpfnet")
    script = f"""
        eval "$('{command}' --show-completion bash)"
        COMP_WORDS=(cpfnet {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
        _cpfnet_completion '{command}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == expected


def test_the_help_of_long_commands_is_in_groups():
    done = cpfnet("predict", "--help", env={"COLUMNS": "80", "TERM": "dumb"})
    groups = {}
    for line in done.stdout.splitlines():
        assert len(line) <= 80
        if line.startswith("╭─"):
            groups[line.strip("╭╮─ ")] = options = set()
        elif "--" in line and line.startswith("│ "):
            options.update(word for word in line.split() if word.startswith("--"))
    assert groups["Options"] == {"--out", "--help"}
    assert groups["What is written"] == {"--format", "--probabilities", "--uncertainty", "--overlays"}
    assert {"--overwrite", "--resume"} == groups["What was done before"]
    assert {"--device", "--backend", "--shard"} <= groups["Where it runs"]
    assert {"--tta", "--overlap", "--batch"} <= groups["How it is predicted"]
    assert "default: same" in done.stdout


def test_a_plan_in_python_takes_settings_by_name(work, caplog):
    made = cpfnet_package.plan(work / "data", settings={"training.epochs": 3, "training": {"batch": 2}})
    (message,) = caplog.messages
    assert message.startswith("Expected for the plan as proposed: about ")
    assert (made.training.epochs, made.training.batch) == (3, 2)
    with pytest.raises(CpfnetError, match="did you mean 'epochs'"):
        cpfnet_package.train(work / "data", work / "none", settings={"training.epoch": 3})


def test_another_machine_is_planned_for(work, tmp_path):
    done = cpfnet("plan", work / "data", "-o", tmp_path / "plan.yaml", "--memory", "24GiB")
    assert done.returncode == 0, done.stderr
    assert "24 GiB free on the GPU that is planned for" in (tmp_path / "plan.yaml").read_text().replace("\n  # ", " ")
    here = cpfnet("plan", work / "data", "-o", tmp_path / "none.yaml", "--device", "cuda:9")
    assert here.returncode != 0
    assert "--memory 24GiB" in here.stderr
    assert not (tmp_path / "none.yaml").exists()
    with pytest.raises(CpfnetError, match="is no amount of memory"):
        cpfnet_package.plan(work / "data", memory="plenty")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize("kib", [300_000, 600_000, 900_000, 1_200_000])
def test_too_little_memory_is_called_so(work, kib, tmp_path):
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({kib * 1024},) * 2)\n"
        "from cpfnet.cli.app import main; main()"
    )
    model, picture = work / "model", next((work / "data/images").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", model, picture, "-o", tmp_path / "out", "--backend", "torch"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        timeout=120,
    )
    message = done.stdout + done.stderr
    assert "Traceback" not in message
    assert "defect" not in message
    assert done.returncode == 0 or "memory" in message  # the loader of libraries itself may give up, and says so
    assert done.returncode == 0 or not list((tmp_path / "out").glob("*.png"))
