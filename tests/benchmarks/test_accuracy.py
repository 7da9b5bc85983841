"""The harness of the accuracy figures: separate splits for judging, exact budgets, tables that agree with rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import cpfnet
from benchmarks.accuracy import budget, nnunet
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.kept import pack, unpack
from benchmarks.accuracy.pictures import boundaries
from benchmarks.accuracy.protocol import PROTOCOLS, STARE, evenly, parts, write_dataset
from benchmarks.accuracy.runs import Bench, rows
from benchmarks.accuracy.table import fill, seed_means, tables
from benchmarks.accuracy.variants import PLAIN, Variant
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError, FormatError, OutputError, TrainingError
from tests.synthetic import make_images_dataset, shared, write_raster

DRIVE = [str(n) for n in range(21, 41)]


@pytest.mark.parametrize(
    ("name", "cases", "sizes"),
    [
        ("drive", 20, (13, 3, 4)),
        ("stare", 20, (8, 2, 10)),
        ("ph2", 120, (67, 13, 40)),
        ("hippocampus", 156, (97, 19, 40)),
        ("chestxray", 227, (152, 30, 45)),
    ],
)
def test_sizes_of_the_parts(name: str, cases: int, sizes: tuple[int, int, int]) -> None:
    own = {"drive": DRIVE, "stare": STARE.split()}
    names = own.get(name, [f"case_{n:03d}" for n in range(cases)])
    choosing, judging = parts(names, PROTOCOLS[name], 0)
    assert (cases - len(choosing) - len(judging), len(choosing), len(judging)) == sizes
    assert not set(choosing) & set(judging)


def test_folds_of_drive_judge_every_photograph_once() -> None:
    judged = [parts(DRIVE, PROTOCOLS["drive"], fold)[1] for fold in range(5)]
    assert judged[0] == ["37", "38", "39", "40"]  # as the recipe holds out
    assert sorted(name for names in judged for name in names) == DRIVE


def test_folds_of_stare_judge_every_photograph_once_by_one_reader(tmp_path: Path) -> None:
    halves = [parts(STARE.split(), PROTOCOLS["stare"], fold)[1] for fold in range(2)]
    assert sorted(halves[0] + halves[1]) == STARE.split()
    for name in STARE.split()[:10]:
        write_raster(tmp_path / f"stare-images/{name}.png", np.zeros((20, 20, 3), np.uint8))
        for reader in ("ah", "vk"):
            write_raster(tmp_path / f"labels-{reader}/{name}.{reader}.png", np.eye(20, dtype=np.uint8) * 255)
    data = load(write_dataset(PROTOCOLS["stare"], tmp_path, 0, tmp_path / "fold-0.yaml"))
    assert all(f"{case.id}.ah.png" in str(case.labels) and "vk" not in str(case.labels) for case in data.cases)


@given(st.integers(1, 400), st.floats(0.01, 1))
def test_evenly_spread_cases_are_different_and_nowhere_dense(count: int, share: float) -> None:
    names = [str(n) for n in range(count)]
    chosen = list(map(int, evenly(names, share)))
    assert len(set(chosen)) == len(chosen) == max(1, round(share * count))
    gaps = {b - a for a, b in pairwise(chosen)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize(
    ("names", "fold", "message"), [(DRIVE, 5, "no fold 5"), (["a", "b", "c"], 0, "0 of them to judge")]
)
def test_impossible_splits_are_refused(names: list[str], fold: int, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        parts(names, PROTOCOLS["drive"], fold)


def test_dataset_file_holds_recipe_and_split(tmp_path: Path) -> None:
    data = make_images_dataset(tmp_path / "data", cases=12, size=(32, 32))
    written = write_dataset(PROTOCOLS["ph2"], data, 0, tmp_path / "out" / "fold-0.yaml")
    cases = load(written).cases
    split = {which: [case.id for case in cases if case.split == which] for which in ("train", "val", "test")}
    assert {which: len(ids) for which, ids in split.items()} == {"train": 7, "val": 1, "test": 4}
    assert split["test"] == ["case_00", "case_03", "case_06", "case_09"]
    before = written.read_text()
    assert write_dataset(PROTOCOLS["ph2"], data, 0, written).read_text() == before
    more = make_images_dataset(tmp_path / "more", cases=15, size=(32, 32))
    with pytest.raises(DatasetError, match="another one"):
        write_dataset(PROTOCOLS["ph2"], more, 0, written)
    assert written.read_text() == before
    with pytest.raises(DatasetError, match="no such folder"):
        write_dataset(PROTOCOLS["ph2"], tmp_path / "nowhere", 0, tmp_path / "none.yaml")


def test_recipe_of_the_radiographs_fits_them(tmp_path: Path) -> None:
    data = load(write_dataset(PROTOCOLS["chestxray"], shared("ChestXray"), 0, tmp_path / "fold-0.yaml"))
    assert len(data.cases) == 227
    assert all(case.labels for case in data.cases)
    assert not data.problems


@given(st.floats(0.5, 600), st.floats(0.001, 20), st.floats(0, 60))
@example(1.0, 1.0, 2.2e-309)  # too short to divide by
def test_a_budget_is_used_and_never_exceeded(minutes: float, step: float, validation: float) -> None:
    try:
        course = budget.of_minutes(minutes, budget.Pace(step, validation))
    except TrainingError:
        assert step + validation > 60 * minutes / budget.MOST_EPOCHS
        return
    spent = course.total * step + course.epochs * validation
    assert spent <= 60 * minutes * (1 + 1e-9)
    assert spent + course.epochs * step > 60 * minutes * (1 - 1e-9)  # one more step an epoch would not fit
    assert course.epochs == 1 or course.epochs * validation <= budget.VALIDATING * 60 * minutes * (1 + 1e-9)


def test_budget_by_hand() -> None:
    # 2400 s: 20 epochs of 120 s, 6 of which validate; 114 s hold 114 steps of 1 s.
    assert budget.of_minutes(40, budget.Pace(1.0, 6.0)) == budget.Schedule(20, 114)
    # Validations of 60 s may take 240 s together: 4 epochs of 600 s, 540 of which learn.
    assert budget.of_minutes(40, budget.Pace(1.0, 60.0)) == budget.Schedule(4, 540)
    assert budget.of_steps(3) == budget.Schedule(3, 1)
    assert budget.of_steps(1000) == budget.Schedule(20, 50)
    with pytest.raises(TrainingError, match="too few"):
        budget.of_minutes(0.01, budget.Pace(2.0, 0.1))


@given(st.floats(1, 600), st.floats(0.001, 29), st.floats(0, 30))
def test_nnunet_uses_the_same_budget(minutes: float, iteration: float, validation: float) -> None:
    found = nnunet.course(minutes, budget.Pace(iteration, validation))
    spent = found.epochs * (found.steps * iteration + validation)
    assert spent <= 60 * minutes * (1 + 1e-9)
    assert spent + found.steps * iteration + validation > 60 * minutes * (1 - 1e-9)  # one more epoch would not fit
    assert found.epochs <= nnunet.EPOCHS


def row(
    variant: str, seed: int, fold: int, dice: float, hd95: float, *, count: int = 4, infinite: int = 0
) -> dict[str, Any]:
    """What a run writes, as far as tables look at it."""

    def score(metric: str, value: float, infinite: int = 0) -> dict[str, Any]:
        return {"class": "(mean)", "metric": metric, "finite_mean": value, "count": count, "infinite": infinite}

    return {
        "dataset": "ph2",
        "variant": variant,
        "fold": fold,
        "seed": seed,
        "budget": {"minutes": 40},
        "mirrored": False,
        "settings": [],
        "parameters": 1_000_000,
        "steps": 500,
        "batch": "4 × 64×64",
        "cases": {"train": 70, "choose": ["a"], "judge": ["b", "c"]},
        "protocol": {"distance unit": "pixels", "region": "whole image"},
        "scores": [score("dice", dice), score("hd95", hd95, infinite)],
        "guide": [],
        "seconds": {"training": 2400.0},
        "gpu_gib": None,
        "hardware": "a machine",
        "versions": {"cpfnet": "0.1.0"},
        "place": Path("nowhere"),
    }


def test_means_over_seeds_weigh_folds_by_their_cases() -> None:
    found = [
        row("unet", 0, 0, 0.8, 2.0, count=4),
        row("unet", 0, 1, 0.9, 4.0, count=2),
        row("unet", 1, 0, 0.6, 3.0, infinite=1),
    ]
    means, infinite = seed_means(found, "(mean)", "dice")
    assert means == pytest.approx([(4 * 0.8 + 2 * 0.9) / 6, 0.6])
    assert infinite == 0
    means, infinite = seed_means(found, "(mean)", "hd95")
    assert means == pytest.approx([(4 * 2 + 2 * 4) / 6, 3.0])
    assert infinite == 1


def test_table_says_mean_sd_and_what_is_missing() -> None:
    text = tables(
        [row("unet", 0, 0, 0.90, 5.0), row("unet", 1, 0, 0.92, 7.0, infinite=1), row("dynunet", 0, 0, 0.95, 4.0)]
    )["ph2"]
    lines = text.splitlines()
    assert lines[0] == "| network | weights | steps | Dice | HD95, pixels | training | seeds |"
    sd = math.sqrt(2) / 100
    assert f"| unet | 1.0 M | 500 of 4 × 64×64 | 0.9100 ± {sd:.4f} | 6.00 ± 1.41 (1 × ∞) | 40 min | 2 |" in lines
    assert "| dynunet | 1.0 M | 500 of 4 × 64×64 | 0.9500 | 4.00 | 40 min | 1 |" in lines
    assert "70 train, 1 choose, 2 judge" in text
    assert "scores.json, the scores case by case, is not beside each row of unet, dynunet." in text


def test_means_over_other_cases_are_told() -> None:
    fewer = row("dynunet", 0, 0, 0.95, 4.0) | {"cases": {"train": 70, "choose": ["a"], "judge": ["b"]}}
    lines = tables([row("unet", 0, 0, 0.90, 5.0), fewer])["ph2"].splitlines()
    assert lines[0].endswith("| seeds | cases judged |")
    assert [line.rsplit("|", 2)[1].strip() for line in lines[2:4]] == ["2", "1"]


def test_an_ablation_alone_makes_no_table_of_networks() -> None:
    both = [row("cpfnet", 0, 0, 0.9, 5.0), row("gpg", 0, 0, 0.9, 5.0)]
    assert list(tables(both)) == ["ph2-ablation"]
    assert list(tables([*both, row("unet", 0, 0, 0.9, 5.0)])) == ["ph2", "ph2-ablation"]


def test_runs_that_differ_are_not_averaged() -> None:
    with pytest.raises(DatasetError, match="differ in steps: 400 and 500"):
        tables([row("unet", 0, 0, 0.9, 5.0), row("unet", 1, 0, 0.9, 5.0) | {"steps": 400}])
    with pytest.raises(DatasetError, match="no row"):
        tables([])


def test_tables_stand_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ph2: begin -->\nold\n<!-- ph2: end -->\nafter\n")
    assert fill(page, {"ph2": "| new \\1 |\n"}) == ["ph2"]
    assert page.read_text() == "before\n<!-- ph2: begin -->\n\n| new \\1 |\n\n<!-- ph2: end -->\nafter\n"
    with pytest.raises(OutputError, match="no place for the table drive"):
        fill(page, {"drive": "x"})


@pytest.mark.parametrize("part", ["networks", "ablation", "nnunet"])
def test_the_page_says_what_the_kept_results_say(part: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    unpack(root / "benchmarks" / "accuracy" / "results" / part, tmp_path)
    page = (root / "benchmarks" / "accuracy" / "measurements.md").read_text(encoding="utf-8")
    for mark, text in tables(rows(tmp_path)).items():
        assert f"<!-- {mark}: begin -->\n\n{text}\n<!-- {mark}: end -->" in page


def test_docs_have_a_place_for_every_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        (Path(__file__).parents[2] / "benchmarks" / "accuracy" / "measurements.md").read_text(encoding="utf-8")
    )
    names = [f"{name}{kind}" for name in PROTOCOLS for kind in ("", "-mirrored")]
    names += ["drive-ablation", "ph2-ablation", "boundaries"]
    assert fill(page, dict.fromkeys(names, "filled")) == names
    assert "yet.*" not in page.read_text()


@pytest.mark.parametrize("budget", [["--steps", "0"], ["--minutes", "-3"], ["--minutes", "nan"], ["--minutes", "inf"]])
def test_impossible_budgets_are_refused(budget: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ph2", "--data", str(tmp_path), *budget])
    assert f"{budget[1]} is not a number above 0" in capsys.readouterr().err


def test_what_is_wrong_with_all_runs_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_images_dataset(tmp_path / "data", cases=12, size=(32, 32))
    (tmp_path / "empty").mkdir()
    out = ["--steps", "2", "--out", str(tmp_path / "out")]
    for arguments, message in (
        (["ph2", "--data", str(tmp_path / "none")], "no such folder"),
        (["ph2", "--data", str(data), "--folds", "0", "7"], "no fold 7"),
        (["ph2", "--data", str(data), "--networks", "unet", "cpfnet-hd"], "did you mean 'cpfnet-hr'?"),
        (["stare", "--data", str(tmp_path / "empty"), "--networks", "unet"], "not as recipes/stare.yaml describes it"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *out])
        assert ended.value.code == 1
        output = "".join(capsys.readouterr())
        assert output.count("error:") == 1
        assert message in output
        assert str(tmp_path / "out") not in output
    assert not list((tmp_path / "out").rglob("model"))


@pytest.mark.slow
def test_a_run_from_data_to_table_and_picture(tmp_path: Path) -> None:
    data = make_images_dataset(tmp_path / "data", cases=12, size=(48, 48), channels=3)
    settings = ("spatial.patch=[32, 32]", "training.batch=2", "training.workers=0", "training.precision=fp32")
    bench = Bench(
        PROTOCOLS["ph2"], data, tmp_path / "out", steps=2, device="cpu", settings=settings, say=lambda message: None
    )
    unet = Variant("unet", "unet", ("network.options={widths: [4, 4, 8, 8, 8]}",))
    made = bench.run(unet, fold=0, seed=0)
    assert made["steps"] == 2
    assert made["cases"]["judge"] == ["case_00", "case_03", "case_06", "case_09"]

    kept = json.loads(json.dumps(made))
    file = tmp_path / "out" / "ph2" / "unet" / "fold-0-seed-0" / "row.json"
    written = file.stat().st_mtime_ns
    assert bench.run(unet, fold=0, seed=0) == kept
    assert file.stat().st_mtime_ns == written  # not done again
    with pytest.raises(OutputError, match="other settings"):
        replace(bench, steps=4).run(unet, fold=0, seed=0)

    file.unlink()  # stopped after training, before it was judged
    assert bench.run(unet, fold=0, seed=0)["scores"] == made["scores"]

    found = rows(tmp_path / "out")
    assert "| unet |" in tables(found)["ph2"]
    assert pack(tmp_path / "out", tmp_path / "kept") == unpack(tmp_path / "kept", tmp_path / "again") == 1
    assert tables(rows(tmp_path / "again")) == tables(found)
    lines = (tmp_path / "kept.csv").read_text().splitlines()
    assert len(lines) == 1 + len(made["cases"]["judge"])
    with pytest.raises(OutputError, match="is not empty"):
        unpack(tmp_path / "kept", tmp_path / "again")
    (tmp_path / "kept.csv").write_text("\n".join(lines[:1]))
    with pytest.raises(FormatError, match="not what `pack` writes"):
        unpack(tmp_path / "kept", tmp_path / "cut")
    with pytest.raises(FormatError, match="cannot be read"):
        unpack(tmp_path / "none", tmp_path / "none")
    shown = boundaries(found, ["unet"], tmp_path / "boundaries.png")
    assert set(shown) <= set(made["cases"]["judge"])
    with Image.open(tmp_path / "boundaries.png") as picture:
        assert picture.format == "PNG"
    with pytest.raises(DatasetError, match="cpfnet-hr was not judged; there are unet"):
        boundaries(found, ["unet", "cpfnet-hr"], tmp_path / "none.png")


def test_the_plain_way_is_a_plan_for_colours(tmp_path: Path) -> None:
    plan = cpfnet.plan(make_images_dataset(tmp_path, channels=3), network=PLAIN.network, weights="none")
    plain = plan.with_settings([*PLAIN.settings])
    assert [channel.intensity.kind for channel in plain.channels] == ["zscore"] * 3
    assert plain.network.options == {}  # the paper's width, whatever is proposed
