"""dataset.yaml, plan.yaml, and the lists of cases as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cpfnet.planning import Plan
from cpfnet.settings import write_yaml
from tests.corpus.mutant import ANY, OTHER, REFUSED, Mutant, put
from tests.corpus.mutant import harmed as harmed_bytes
from tests.synthetic import make_images_dataset

FAMILIES = ("dataset.yaml", "plan.yaml", "CSV", "JSON")
_REFUSED = frozenset({REFUSED})
_OTHER = frozenset({OTHER})

DATASET = """\
name: eyes
modality: fundus
image: images/{case}.png
label: masks/{case}.png
patient: ^(case_\\d)
channels: [red, green, blue]
labels: {vessel: 255, tubular: [vessel]}
split:
  val: [case_01]
"""
CSV = (
    "case,image,label,patient,split\n"
    "a,images/case_00.png,masks/case_00.png,p1,train\n"
    "b,images/case_01.png,masks/case_01.png,p2,val\n"
)
DATALIST = json.dumps(
    {
        "name": "eyes",
        "modality": {"0": "MRI"},
        "labels": {"background": 0, "vessel": 255},
        "training": [{"image": f"images/case_0{n}.png", "label": f"masks/case_0{n}.png", "fold": n} for n in range(2)],
    },
    indent=1,
)
PLAN = Plan.model_validate(
    {
        "name": "any",
        "source": "volumes",
        "channels": [{"name": "T1", "intensity": {"kind": "zscore"}}],
        "labels": {"classes": [{"name": "lesion", "values": 1}]},
        "spatial": {"patch": [64, 64]},
        "training": {"samples": 8},
    }
)


def dataset(text: str | bytes, name: str, folder: Path) -> Path:
    """Three small cases and a file that declares them."""
    make_images_dataset(folder, cases=3, size=(8, 8), channels=1)
    return put(text, name, folder)


def plan(folder: Path) -> Path:
    write_yaml(PLAN, folder / "plan.yaml")
    return folder / "plan.yaml"


def _laughs(levels: int, width: int, end: str) -> str:
    lines = ["a0: &a0 ['ha', 'ha']"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join([*lines, end])


def _maps(levels: int, width: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(width))}}}" for n in range(1, levels)]
    return "\n".join([*lines, f"labels: *a{levels - 1}"])


def _merges(levels: int, width: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * width)}], y{n}: 1}}" for n in range(1, levels)]
    return "\n".join([*lines, f"labels: *a{levels - 1}"])


_TAGS = (
    "!!python/object/apply:os.system ['touch ../outside/ran']",
    "!!python/object/new:subprocess.Popen [['touch', '../outside/ran']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:cpfnet.planning.Plan {}",
    "!!binary not*base64",
    "!!binary aGVsbG8=",
    "!!set {a, b}",
    "!!omap [a: 1, b: 2]",
    "!!omap [1, 2]",
    "!!pairs [a: 1]",
    "!!timestamp 2001-99-99",
    "!!int notanumber",
    "!!float notanumber",
    "!!bool perhaps",
    "!!null something",
    "!!map [a]",
    "!!seq {a: 1}",
    "!!str [a]",
    "!local {a: 1}",
    "!<tag:example.org,2000:x> y",
    "!e!x y",
)


def _yaml() -> Iterator[tuple[str, str | bytes]]:
    """Contents that are no settings, for a key that stands in both files: (what, text)."""
    for tag in _TAGS:
        yield f"tag {tag[:40]}", f"name: {tag}"
        yield f"tag {tag[:40]} for the whole", tag
        yield f"tag {tag[:40]} for labels", f"labels: {tag}"
    yield "billion laughs", _laughs(10, 9, "name: *a9")
    yield "billion laughs in a list of names", _laughs(10, 9, "channels: *a9")
    yield "billion laughs of mappings", _maps(10, 9)
    yield "billion laughs by merging", _merges(10, 9)
    yield "merging 5,000 levels deep", _merges(5000, 1)
    yield "a list that holds itself", "channels: &a [*a]"
    yield "a mapping that holds itself", "labels: &a {x: *a}"
    yield "a mapping that merges itself", "labels: &a {<<: *a}"
    yield "the whole holds itself", "&a {name: *a}"
    yield "alias of nothing", "name: *nowhere"
    yield "merge of a number", "<<: 5"
    for depth in (100, 1_000, 100_000):
        yield f"{depth} lists deep", "channels: " + "[" * depth + "]" * depth
        yield f"{depth} lists deep, never closed", "channels: " + "[" * depth
        yield f"{depth} mappings deep", "labels: " + "{a: " * depth + "}" * depth
    yield "300 levels of indentation", "\n".join("  " * n + "a:" for n in range(300))
    yield "2,000 levels of dashes", "channels: \n" + "- " * 2000 + "x"
    yield "key of lists", "? [a, b]\n: 1"
    yield "key of mappings", "? {a: {b: c}}\n: 1"
    yield "keys that are no words", "1: a\n1.5: b\nnull: c\ntrue: d\n2001-01-01: e"
    yield "key twice", "name: a\nname: b"
    yield "two documents", "name: a\n---\nname: b"
    yield "100 documents", "name: a\n---\n" * 100
    yield "YAML 9.9", "%YAML 9.9\n---\nname: a"
    yield "a directive that does not exist", "%NOTHING here\n---\nname: a"
    yield "number of 10⁵ digits", "name: " + "9" * 100_000
    yield "number of 10⁵ digits as value", "labels: {vessel: " + "9" * 100_000 + "}"
    yield "hexadecimal number of 10⁵ digits", "labels: {vessel: 0x" + "f" * 100_000 + "}"
    yield "1e999999999", "labels: {vessel: 1e999999999}"
    yield "infinity", "labels: {vessel: .inf}"
    yield "NaN", "labels: {vessel: .nan}"
    yield "minus zero", "labels: {vessel: -0}"
    yield "sixties", "labels: {vessel: 1:59:59}"
    yield "octal", "labels: {vessel: 0o17}"
    yield "date", "name: 2001-12-14t21:59:43.10-05:00"
    yield "date that cannot be", "name: 2001-13-45"
    yield "Norway", "name: no"
    yield "word of 10 MB", "name: " + "x" * 10**7
    yield "200,000 keys", "\n".join(f"k{n}: {n}" for n in range(200_000))
    yield "200,000 names", "channels: [" + ", ".join(f"c{n}" for n in range(200_000)) + "]"
    yield "10 MB of blanks", " " * 10**7
    yield "10 MB of comments", "# nothing\n" * 10**6
    yield "10⁵ anchors", "channels: [" + ", ".join(f"&a{n} x" for n in range(100_000)) + "]"
    yield "letters that cannot be printed", "name: a\x07b"
    yield "null bytes", b"name: a\0b"
    yield "turning the line around", "name: \u202egnp.exe"
    yield "surrogates", 'name: "\\ud800"'
    yield "zero-width key", "\u200bname: a"
    yield "tabs", "labels:\n\tvessel: 255"
    yield "UTF-16", "name: a\n".encode("utf-16")
    yield "UTF-32", "name: a\n".encode("utf-32")
    yield "Latin-1", "name: Müller\n".encode("latin-1")
    yield "with a byte order mark", b"\xef\xbb\xbfname: a\n"
    yield "nothing", b""
    yield "a number", "5"
    yield "a list", "- a\n- b"
    yield "only a comment", "# nothing"
    yield "JSON", '{"name": "a"}'
    yield "an HTML page", "<!DOCTYPE html><html><body>403</body></html>"
    yield "a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "a PNG image", b"\x89PNG\r\n\x1a\n" + bytes(range(256))


_OUTSIDE = (
    ("pattern above the folder", DATASET.replace("images/", "../outside/"), _REFUSED),
    ("pattern above the folder, hidden", DATASET.replace("images/", "images/x/../../../outside/"), _REFUSED),
    ("absolute pattern", DATASET.replace("images/", "/etc/"), _REFUSED),
    ("pattern from home", DATASET.replace("images/", "~/"), _REFUSED),
    ("pattern with a backslash", DATASET.replace("images/", "..\\\\outside\\\\"), _REFUSED),
    ("label pattern above the folder", DATASET.replace("masks/", "../outside/"), _REFUSED),
    ("pattern without a case", DATASET.replace("{case}.png", "a.png"), _REFUSED),
    ("pattern with an unknown word", DATASET.replace("{case}.png", "{0.__class__}.png"), _REFUSED),
    ("pattern of 10,000 stars", DATASET.replace("{case}.png", "*" * 10_000 + "{case}.png"), ANY),
    ("pattern of 60 pairs of stars", DATASET.replace("images/{case}.png", "images/" + "*a" * 60 + "{case}.png"), ANY),
    ("root that is not there", DATASET + "root: ../nowhere\n", _REFUSED),
    ("root that is a file", DATASET + "root: images/case_00.png\n", _REFUSED),
    ("root of null bytes", DATASET + 'root: "a\\0b"\n', _REFUSED),
    ("root of an unknown user", DATASET + "root: ~nobody-of-this-name/x\n", _REFUSED),
    ("root of 10,000 letters", DATASET + f"root: {'x' * 10_000}\n", _REFUSED),
    ("manifest above the folder", "manifest: ../../../../../etc/passwd\n", _REFUSED),
    ("manifest that is a device", "manifest: /dev/zero\n", _REFUSED),
    ("manifest of null bytes", 'manifest: "a\\0.csv"\n', _REFUSED),
    ("manifest that is itself", "manifest: dataset.yaml\n", _REFUSED),
    ("patient expression that never ends", DATASET.replace("^(case_\\d)", "'^(([a-z_0-9])+)+$'"), ANY),
    ("patient expression that cannot be", DATASET.replace("^(case_\\d)", "'(('"), _REFUSED),
    (
        "patient expression of 10⁵ brackets",
        DATASET.replace("^(case_\\d)", "'" + "(" * 10**5 + ")" * 10**5 + "'"),
        _REFUSED,
    ),
    ("patient expression repeated 10⁹ times", DATASET.replace("^(case_\\d)", "'(a{99999}){99999}{99999}'"), ANY),
    ("no such case in the split", DATASET.replace("case_01", "case_77"), _REFUSED),
    (
        "1,000 classes",
        DATASET.replace(
            "{vessel: 255, tubular: [vessel]}", "{" + ", ".join(f"c{n}: {n + 1}" for n in range(1000)) + "}"
        ),
        _REFUSED,
    ),
    ("class without a name", DATASET.replace("vessel: 255", "'': 255"), _REFUSED),
    ("values that overlap", DATASET.replace("vessel: 255", "vessel: 255, lesion: 255"), _REFUSED),
    ("value beyond all", DATASET.replace("255", "99999999999999999999"), _REFUSED),
)

_ROWS = (
    ("id above the folder", "case,image\n../../outside/evil,images/case_00.png\n", _OTHER),
    ("absolute id", "case,image\n/etc/passwd,images/case_00.png\n", _OTHER),
    ("id of dots", "case,image\n..,images/case_00.png\n", _REFUSED | _OTHER),
    ("id of one dot", "case,image\n.,images/case_00.png\n", _REFUSED | _OTHER),
    ("id of control letters", "case,image\na\x1b[31mb,images/case_00.png\n", _REFUSED | _OTHER),
    ("id of two lines", 'case,image\n"a\nb",images/case_00.png\n', _REFUSED | _OTHER),
    ("id of 10,000 letters", f"case,image\n{'x' * 10_000},images/case_00.png\n", _REFUSED | _OTHER),
    ("absolute image", "case,image\na,/etc/passwd\n", _REFUSED | _OTHER),
    ("image of 10,000 letters", f"case,image\na,{'x' * 10_000}.png\n", _REFUSED | _OTHER),
    ("null bytes", "case,image\na,b\0.png\n", _REFUSED),
    ("no column of images", "case,colour\na,b\n", _REFUSED),
    ("no line", "case,image\n", _REFUSED),
    ("quote that never ends", 'case,image\na,"images/case_00.png\n' + "x" * 10**6, _REFUSED),
    ("field of 10 MB", "case,image\na," + "x" * 10**7 + "\n", _REFUSED),
    ("100,000 columns", ",".join(f"c{n}" for n in range(100_000)) + ",image\n", _REFUSED),
    ("fold that is no number", "case,image,fold\na,images/case_00.png,one\n", _REFUSED),
    ("fold of 10⁵ digits", "case,image,fold\na,images/case_00.png," + "9" * 10**5 + "\n", _REFUSED),
    ("split that does not exist", "case,image,split\na,images/case_00.png,all\n", _REFUSED),
    ("repeated columns", "case,image,image\na,b,c\n", _REFUSED),
    ("carriage returns alone", "case,image\ra,images/case_00.png\r", _REFUSED | _OTHER),
    ("names that are not UTF-8", b"case,image\na\xff,images/case_00.png\n", _REFUSED | _OTHER),
    ("UTF-16", "case,image\na,images/case_00.png\n".encode("utf-16"), _OTHER),
    ("a formula", "case,image\n=cmd|' /C calc'!A0,images/case_00.png\n", _REFUSED | _OTHER),
    ("patient of control letters", "case,image,patient\na,images/case_00.png,\x1b]0;x\x07\n", _REFUSED | _OTHER),
    ("500,000 channels", "case,image\na," + ";".join(["b.png"] * 500_000) + "\n", _REFUSED | _OTHER),
)  # fmt: skip


def _json() -> Iterator[tuple[str, str | bytes, frozenset[str]]]:
    for words, entries in (
        ("entries that are numbers", [1, 2]),
        ("an entry without image", [{"label": "a"}]),
        ("image that is a mapping", [{"image": {"a": 1}}]),
        ("image of numbers", [{"image": [1, 2]}]),
        ("label that is a list", [{"image": "images/case_00.png", "label": ["a"]}]),
        ("null bytes in a name", [{"image": "a\0b.png"}]),
        ("name of 10,000 letters", [{"image": "x" * 10_000}]),
        ("fold that is a list", [{"image": "images/case_00.png", "fold": [1]}]),
        ("fold that is infinite", [{"image": "images/case_00.png", "fold": float("inf")}]),
        ("id that is a list", [{"image": "images/case_00.png", "case": [1]}]),
        ("id of surrogates", [{"image": "images/case_00.png", "case": "\ud800"}]),
        ("image of surrogates", [{"image": "\ud800.png"}]),
        ("id above the folder", [{"image": "images/case_00.png", "case": "../../outside/evil"}]),
        ("no entry", []),
        ("entries that are a word", "all"),
    ):
        yield words, json.dumps({"training": entries}), ANY
    cases = '"training": [{"image": "images/case_00.png"}]'
    yield "labels of 10⁵ digits", f'{{"labels": {{"vessel": {"9" * 10**5}}}, {cases}}}', _REFUSED
    yield "labels named by 10⁵ digits", f'{{"labels": {{"{"9" * 10**5}": "vessel"}}, {cases}}}', _REFUSED
    yield "labels named by superscripts", f'{{"labels": {{"²": "vessel"}}, {cases}}}', ANY
    yield "labels that are a list", f'{{"labels": [1], {cases}}}', ANY
    yield "labels of NaN", f'{{"labels": {{"vessel": NaN}}, {cases}}}', _REFUSED
    yield "labels of mappings", f'{{"labels": {{"vessel": {{}}}}, {cases}}}', _REFUSED
    yield "modality that is a number", f'{{"modality": 5, {cases}}}', ANY
    yield "channels that are a list", f'{{"channel_names": [1, 2], {cases}}}', ANY
    yield "name that is a mapping", f'{{"name": {{}}, {cases}}}', ANY
    for depth in (1_000, 1_000_000):
        yield f"{depth} lists deep", '{"training": ' + "[" * depth + "]" * depth + "}", _REFUSED
    yield "a number", "5", _REFUSED
    yield "no JSON", "training: a", _REFUSED
    yield "UTF-16", '{"training": []}'.encode("utf-16"), _REFUSED
    yield "nothing", "", _REFUSED


def _plans() -> Iterator[tuple[str, str]]:
    """One value of a good plan made absurd."""
    values = ("-1", "0", "1e308", ".nan", ".inf", "null", "[]", "{}", "''", "99999999999999999999", "[[[]]]", "true")
    keys = {
        "spatial.patch": "patch", "training.samples": "samples", "training.batch": "batch", "training.epochs": "epochs",
        "training.learning_rate": "learning_rate", "labels.classes": "classes", "channels": "channels",
    }  # fmt: skip
    from ruamel.yaml import YAML

    data = PLAN.model_dump(mode="json")
    for dotted in keys:
        for value in values:
            changed = json.loads(json.dumps(data))
            *path, last = dotted.split(".")
            place = changed
            for key in path:
                place = place[key]
            place[last] = "PLACEHOLDER"
            text = json.dumps(changed).replace('"PLACEHOLDER"', value)
            assert YAML(typ="safe").load(text) is not None
            yield f"{dotted} is {value}", text


def mutants(seed: int) -> Iterator[Mutant]:
    sound = {
        "dataset.yaml": (DATASET, "dataset"),
        "CSV": (CSV, "dataset"),
        "JSON": (DATALIST, "dataset"),
    }
    names = {"dataset.yaml": "dataset.yaml", "CSV": "cases.csv", "JSON": "cases.json"}
    for family, (text, use) in sound.items():
        make = partial(dataset, text, names[family])
        yield from harmed_bytes(family, "bytes", names[family], make, seed, use=use, text=True)
    yield from harmed_bytes("plan.yaml", "bytes", "plan.yaml", plan, seed, use="plan", text=True)
    for words, content in _yaml():
        yield Mutant("dataset.yaml", words, partial(dataset, content, "dataset.yaml"), "dataset")
        yield Mutant("plan.yaml", words, partial(put, content, "plan.yaml"), "plan", _REFUSED)
    for words, text, may in _OUTSIDE:
        yield Mutant("dataset.yaml", words, partial(dataset, text, "dataset.yaml"), "dataset", may)
    for words, text in _plans():
        yield Mutant("plan.yaml", words, partial(put, text, "plan.yaml"), "plan")
    for words, content, may in _ROWS:
        yield Mutant("CSV", words, partial(dataset, content, "cases.csv"), "dataset", may)
    for words, content, may in _json():
        yield Mutant("JSON", words, partial(dataset, content, "cases.json"), "dataset", may)
