"""Large jobs in parts: every input in exactly one, what is done left alone, an interrupted part taken up again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.inference.batch import records
from cpfnet.inference.batch.item import Item
from cpfnet.inference.batch.sharding import Shard
from tests import synthetic
from tests.inference.batch.test_run import images_model, picture, read, run, tree


@given(st.lists(st.text(min_size=1), unique=True, max_size=40), st.integers(1, 9))
def test_every_input_is_in_exactly_one_part(names, count):
    items = [Item((Path(name),), name) for name in names]
    parts = [Shard(number, count).of(items) for number in range(1, count + 1)]
    assert sorted(item.name for part in parts for item in part) == sorted(names)
    for part in parts:
        assert part == [item for item in items if item in part]  # in their order


def test_a_share_does_not_depend_on_what_else_there_is():
    items = [Item((Path(name),), name) for name in map(str, range(50))]
    assert set(Shard(2, 4).of(items[::3])) == set(Shard(2, 4).of(items)) & set(items[::3])


def test_shares_are_nearly_equal():
    items = [Item((Path(name),), name) for name in map(str, range(8000))]
    sizes = [len(Shard(number, 8).of(items)) for number in range(1, 9)]
    assert max(sizes) < 1.15 * 1000
    assert min(sizes) > 0.85 * 1000


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/2/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(CpfnetError, match="is no part of a job") as caught:
        cpfnet.predict_files(images_model(), ["scan.png"], "out", shard=text)
    assert "3/8" in caught.value.fix


def images(folder: Path, count: int) -> list[Path]:
    return [synthetic.write_raster(folder / f"{number}.png", picture(number)[0]) for number in range(count)]


def test_parts_together_do_what_one_run_does(tmp_path):
    files = images(tmp_path / "in", 7)
    model = images_model()
    run(model, [tmp_path / "in"], tmp_path / "whole")
    done = [run(model, [tmp_path / "in"], tmp_path / "parts", shard=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(outcome.path for part in done for outcome in part) == sorted(files)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    for file in files:
        np.testing.assert_array_equal(read(tmp_path / "parts" / file.name), read(tmp_path / "whole" / file.name))


def test_the_parts_list_their_masks_together(tmp_path):
    images(tmp_path / "in", 5)
    for number in (1, 2):
        run(images_model(), [tmp_path / "in"], tmp_path / "out", shard=f"{number}/2", uncertainty=True)
    rows = [line.split(",")[0] for line in (tmp_path / "out" / "quality.csv").read_text().splitlines()[1:]]
    assert sorted(rows) == [f"{number}.png" for number in range(5)]


def test_what_is_done_is_left_alone_and_what_is_half_done_is_made_again(tmp_path):
    images(tmp_path / "in", 3)
    out = tmp_path / "out"
    run(images_model(), [tmp_path / "in"], out, overlays=True)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    (out / "overlays" / "1.png").unlink()
    (out / "2.png").unlink()
    outcomes = run(images_model(), [tmp_path / "in"], out, overlays=True, resume=True)
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert [outcome.output.name for outcome in outcomes] == ["0.png", "1.png", "2.png"]
    assert [outcome.already_done for outcome in outcomes] == [True, False, False]
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {
        out / "1.png",
        out / "overlays" / "1.png",
        out / "2.png",
        out / "overlays" / "2.png",
    }


@pytest.mark.slow
def test_a_killed_run_loses_nothing_and_does_nothing_twice(tmp_path):
    files = images(tmp_path / "in", 60)
    model, out = tmp_path / "model", tmp_path / "out"
    images_model().save(model)
    script = (
        "import sys; from tests.inference.oracle import register; register(); from cpfnet.cli.app import main; "
        "sys.argv[0] = 'cpfnet'; main()"
    )
    command = [sys.executable, "-c", script, "predict", model, tmp_path / "in", "-o", out, "--resume"]
    first = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while first.poll() is None and len(list(out.glob("[0-9]*.png"))) < 5:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    whole = {f"{name}.png" for name, _ in records.each(out)}  # one may have been in the middle
    made = {path: path.stat().st_mtime_ns for path in out.glob("[0-9]*.png") if path.name in whole}
    assert made
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{len(files)} of {len(files)} done" in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == made
    for number, file in enumerate(files):
        np.testing.assert_array_equal(read(out / file.name), picture(number)[1])
