"""The report: which case and slice it shows, how it lies, and that the numbers in it are the scores."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel import orientations

from cpfnet import formats
from cpfnet.errors import OutputError
from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.case_picture import overlay_of
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.evaluation.report import sections, write_report
from cpfnet.evaluation.tables import console_table
from cpfnet.evaluation.tables import number as shown
from cpfnet.image import Segmentation
from cpfnet.planning import LabelClass, Labels
from cpfnet.report import page
from tests import synthetic

TWO = Labels(classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b <wide>", values=(2,))))


def image_items(folder: Path, count: int = 5) -> list[Item]:
    items = []
    for i in range(count):
        image, truth = synthetic.blobs(np.random.default_rng(i), (40, 52), 2)
        prediction = np.roll(truth, i, axis=1)
        if i == count - 1:
            prediction[prediction == 2] = 0
        items.append(
            Item(
                f"case{i}",
                synthetic.write_raster(folder / f"p{i}.png", prediction),
                {"label": synthetic.write_raster(folder / f"t{i}.png", truth)},
                images=(synthetic.write_raster(folder / f"i{i}.png", (image * 255).astype(np.uint8)),),
            )
        )
    return items


def test_a_report_holds_the_scores_and_three_cases(tmp_path):
    items = image_items(tmp_path)
    scores = evaluate(items, TWO)
    path = write_report(scores, items, TWO, tmp_path / "report.html", plan="name: <x>", facts=[("Time", "1 s")])
    html = path.read_text()
    assert f"{scores.of('dice')['mean']:.3f}" in html
    assert "∞" in html
    assert "1 of 10" in html  # missed structures
    assert "b: missed" not in html
    assert "b &lt;wide&gt;: missed in 1 of 5" in html
    captions = re.findall(r"(Best|Median|Worst): (case\d), Dice ([\d.]+)", html)
    assert {name for name, *_ in captions} == {"Best", "Median", "Worst"}
    assert ("Best", "case0", "1.000") in captions
    assert html.count("data:image/jpeg") == 3
    assert "name: &lt;x&gt;" in html
    for line in scores.protocol.values():
        assert line.replace("'", "&#39;") in html
    with pytest.raises(OutputError, match="exists already"):
        write_report(scores, items, TWO, path)


def test_probabilities_bring_a_section_on_calibration(tmp_path):
    items = image_items(tmp_path, 2)
    assert "Calibration" not in [section.title for section in sections(evaluate(items, TWO), items, TWO)]
    for number, item in enumerate(items):
        codes = np.asarray(formats.read(item.prediction).array[0])
        planes = np.stack([codes == 1, codes == 2]).astype(np.float32) * 0.8 + 0.1
        items[number] = replace(item, prediction=Segmentation(codes, probabilities=planes))
    section = next(s for s in sections(evaluate(items, TWO), items, TWO) if s.title == "Calibration")
    assert [row[0] for row in section.blocks[0].rows] == ["a", "b <wide>"]
    (note,) = section.blocks[1].paragraphs
    assert note.startswith(
        "Over the pixels of 2 cases together (the table of scores has means over cases), "
        "on the labels' own grid; each class"
    )
    assert "temperature" not in section.blocks[2].caption


def test_the_table_for_the_console(tmp_path):
    scores = evaluate(image_items(tmp_path), TWO)
    columns, rows = console_table(scores)
    assert all(len(row) == len(columns) for row in rows)
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert list(by_name) == ["a", "b <wide>", "mean", "mean with background", "batch-pooled, whole image"]
    assert by_name["mean"]["Dice"].startswith(f"{scores.of('dice')['mean']:.3f} (")
    assert by_name["b <wide>"]["HD95, pixels"] == "∞"
    assert by_name["b <wide>"]["missed"] == "1 of 5"
    assert by_name["batch-pooled, whole image"]["Dice"] == f"{scores.guide[0]['guide_dice']:.3f}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-5, "5e−05"), (-0.0012, "−0.0012"), (0.004, "0.004"), (0.006, "0.01"), (0.0, "0.00"), (1e-17, "0.00")],
)
def test_distances_under_a_microscope_do_not_look_like_none(value, text):
    assert shown(value, 2) == text


def test_the_second_reader_stands_beside_the_prediction(tmp_path):
    """Both against the first reader, on the cases that both have read, in the report and on the console."""
    items = image_items(tmp_path)
    others = [
        synthetic.write_raster(
            tmp_path / f"o{i}.png", np.roll(synthetic.blobs(np.random.default_rng(i), (40, 52), 2)[1], 2)
        )
        for i in range(4)
    ]
    items = [
        Item(item.case, item.prediction, {"first": item.truth["label"]} | ({"second": others[i]} if i < 4 else {}))
        for i, item in enumerate(items)
    ]
    scores = evaluate(items, TWO)
    columns, rows = console_table(scores)
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    prediction, reader = by_name["prediction against reader 'first'"], by_name["reader 'second' against reader 'first'"]
    assert prediction["n"] == reader["n"] == "4"  # the fifth was read by one only
    for row, who in ((prediction, "prediction"), (reader, "second")):
        values = [
            r["dice"]
            for r in scores.rows
            if (r["prediction"], r["reader"], r["class"]) == (who, "first", "(mean)") and r["case"] != "case4"
        ]
        assert row["Dice"].startswith(f"{np.mean(values):.3f} (")
    (beside,) = [part for part in sections(scores, items, TWO) if part.title == "Beside the other readers"]
    (table,) = beside.blocks
    assert [row[0] for row in table.rows] == [
        f"{label}: {who} against reader 'first'"
        for label in ("a", "b <wide>")
        for who in ("prediction", "reader 'second'")
    ]
    assert "4 cases that both have read" in table.caption
    means = {
        r["prediction"]: r for r in scores.rows if r["case"] == "case0" and r["class"] == "a" and r["reader"] == "first"
    }
    assert means["second"]["dice"] < means["prediction"]["dice"] == 1


def test_pooled_figures_have_a_table_of_their_own(tmp_path):
    items = image_items(tmp_path)
    scores = evaluate(items, TWO)
    (pooled,) = [part for part in sections(scores, items, TWO) if "pooled" in part.title]
    (table,) = pooled.blocks
    a, b = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert a["Dice"] == f"{scores.pooled[0]['dice']:.4f}"
    assert b["Sensitivity"] == f"{scores.pooled[1]['sensitivity']:.4f}"
    assert "AUC" not in table.columns  # no probabilities
    assert (a["Cases"], a[""]) == ("5", "a: prediction against reader 'label'")


@pytest.mark.parametrize("count", [1, 2])
def test_few_cases_and_no_images(tmp_path, count):
    items = [Item(i.case, i.prediction, i.truth) for i in image_items(tmp_path, count)]
    parts = sections(evaluate(items, TWO), items, TWO)
    (pictures,) = [part for part in parts if "worst" in part.title]
    assert not any(isinstance(b, page.Figure) for b in pictures.blocks)
    assert page.render(tmp_path / "r.html", title="few", sections=parts).stat().st_size > 1000


def test_nothing_but_empty_masks_still_gives_a_report(tmp_path):
    nothing = synthetic.write_raster(tmp_path / "n.png", np.zeros((9, 9), np.uint8))
    item = Item("e", nothing, {"label": nothing}, images=(nothing,))
    assert write_report(evaluate([item], TWO), [item], TWO, tmp_path / "r.html").exists()


def test_an_image_on_another_grid_is_left_out(tmp_path):
    item = image_items(tmp_path, 1)[0]
    other = synthetic.write_raster(tmp_path / "other.png", np.zeros((7, 7), np.uint8))
    assert overlay_of(item, TWO) is not None
    assert overlay_of(Item("c", item.prediction, item.truth, images=(other,)), TWO) is None


def test_what_does_not_count_is_not_drawn(tmp_path):
    item = image_items(tmp_path, 1)[0]
    roi = np.zeros((40, 52), np.uint8)
    roi[:20] = 255
    path = synthetic.write_raster(tmp_path / "roi.png", roi)
    picture = overlay_of(Item("c", item.prediction, item.truth, roi=path, images=item.images), TWO)
    assert picture.roi is not None
    assert picture.truth[:, :20].any()
    assert not picture.truth[:, 20:].any()
    assert not picture.prediction[:, 20:].any()


def test_a_volume_is_shown_alike_however_it_is_stored(tmp_path):
    """Anterior up, the patient's right on the left, for each of the 48 orientations of one axial scan."""
    shape = (12, 20, 17)  # depth, height, width with axes to S, P, L: what the picture must show
    rng = np.random.default_rng(0)
    image = rng.integers(0, 1000, shape).astype(np.int16)
    truth = np.zeros(shape, np.uint8)
    truth[4, 3:9, 2:6], truth[4, 12:15, 9:16], truth[6, 2:18, 2:15] = 1, 2, 1
    prediction = np.roll(truth, 1, axis=2)
    for number, (axes, signs) in enumerate(synthetic.orientations()):
        code = np.array(list(zip(axes, signs, strict=True)))
        paths = []
        for name, array in (("image", image), ("truth", truth), ("prediction", prediction)):
            # (z, y, x) in LPS → (x, y, z) in RAS
            plain = nibabel.Nifti1Image(array.transpose(2, 1, 0)[::-1, ::-1], np.diag([0.7, 0.5, 3.0, 1.0]))
            turn = orientations.ornt_transform(orientations.io_orientation(plain.affine), code)
            paths.append(tmp_path / f"{name}{number}.nii")
            nibabel.save(plain.as_reoriented(turn), paths[-1])
        picture = overlay_of(Item("v", paths[2], {"label": paths[1]}, images=(paths[0],)), TWO)
        np.testing.assert_array_equal(picture.truth, [truth[4] == 1, truth[4] == 2])
        np.testing.assert_array_equal(picture.prediction, [prediction[4] == 1, prediction[4] == 2])
        order = np.argsort(picture.image[5:9, 5:9], axis=None, kind="stable")
        expected = np.clip(image[4].astype(float), *np.percentile(image[4], (1, 99)))[5:9, 5:9]
        np.testing.assert_array_equal(order, np.argsort(expected, axis=None, kind="stable"))
        assert picture.aspect == pytest.approx(0.5 / 0.7)


def test_windows(tmp_path):
    """Grey values are shown around the structures, not squeezed by a bright corner; a given window is kept to."""
    pixels = np.full((60, 60), 100, np.uint16)
    pixels[20:30, 20:30] = 140
    pixels[0, 0] = 60000
    truth = (pixels == 140).astype(np.uint8)
    path = synthetic.write_raster(tmp_path / "i.png", pixels)
    item = Item("c", Segmentation(truth), {"l": synthetic.write_raster(tmp_path / "t.png", truth)}, images=(path,))
    shown = overlay_of(item, TWO).image
    assert shown[25, 25] - shown[15, 15] == 1
    assert overlay_of(item, TWO, window=(0, 1000)).image[25, 25] == pytest.approx(0.14)
