"""A part of the corpus, and properties of parsers under any bytes. ``python -m tests.corpus`` tries all of it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.data import dataset
from cpfnet.errors import CpfnetError
from cpfnet.planning import Plan
from tests.corpus import volumes
from tests.corpus.collection import FAMILIES, mutants

ROOT = Path(__file__).parents[2]
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and time are limited by Linux's means")
def test_bad_input_is_read_rightly_or_refused_by_name(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    environment["MPLCONFIGDIR"] = str(tmp_path)
    command = [sys.executable, "-m", "tests.corpus", "--every", "50"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split("|")[1].strip() for line in done.stdout.splitlines() if re.match(r"\| [^|]+ \| \d", line)} == {
        *FAMILIES,
        "all",
    }


def test_the_corpus_is_the_same_every_time_and_large():
    first, second = ([(m.family, m.name) for m in mutants(families=("PNG", "NIfTI"))] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first) > 400
    other = [m.name for m in mutants(seed=1, families=("NIfTI",))]
    assert other != [name for family, name in first if family == "NIfTI"]


@FUZZ
@given(offset=st.integers(0, 347), value=st.binary(min_size=1, max_size=8))
@example(offset=40, value=struct.pack("<4h", 3, 32767, 32767, 32767))
@example(offset=80, value=struct.pack("<f", float("nan")))
def test_any_nifti_header_is_read_or_refused(tmp_path, offset, value):
    data = bytearray(volumes.header())
    data[offset : offset + len(value)] = value
    path = tmp_path / "a.nii"
    path.write_bytes(data)
    shape, words = None, "a.nii"
    try:
        shape = formats.read(path).shape
    except CpfnetError as error:
        words = str(error)
    assert "a.nii" in words
    assert shape is None or formats.read_header(path).shape == shape


@FUZZ
@given(st.text(max_size=300))
@example("name: &a [*a]")
@example("labels: {a: 1, a: 2}")
@example("? [a]\n: b")
def test_any_text_is_settings_or_refused(tmp_path, text):
    for name, read in (("plan.yaml", Plan.load), ("dataset.yaml", dataset.load)):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(CpfnetError, match=re.escape(name)):
            read(path)


@FUZZ
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.sampled_from(["case,image\n", "image;label\n", ""]),
)
def test_any_list_of_cases_is_understood_or_refused(tmp_path, text, head):
    path = tmp_path / "cases.csv"
    path.write_text(head + text, encoding="utf-8")
    cases, words = (), "cases.csv"
    try:
        cases = dataset.load(path).cases
    except CpfnetError as error:
        words = str(error)
    assert "cases.csv" in words
    assert all("/" not in case.id and case.id not in (".", "..") for case in cases)
