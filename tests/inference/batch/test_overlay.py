"""Pictures of masks on their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from cpfnet.image import Image, Segmentation
from cpfnet.inference.batch.overlay import write_overlay
from cpfnet.planning import Labels
from tests.preprocessing.plans import make_plan


def test_regions_that_share_a_value_of_their_own_are_outlined(tmp_path: Path) -> None:
    classes = [{"name": "a", "values": [1, 3]}, {"name": "b", "values": [2, 3]}]
    plan = make_plan("images", labels=Labels.model_validate({"exclusive": False, "classes": classes}))
    values = np.zeros((400, 400), np.uint8)
    for number, value in enumerate((1, 3, 2)):
        values[100:300, 100 * number : 100 * number + 60] = value
    path = write_overlay(Image(np.zeros((1, 400, 400), np.uint8)), Segmentation(values), plan, tmp_path / "a.png")
    drawn = np.asarray(Pillow.open(path))
    colours = [set(map(tuple, drawn[values == value].tolist())) - {(0, 0, 0)} for value in (1, 2, 3)]
    assert [len(found) for found in colours] == [1, 1, 1]
    assert colours[2] == colours[1] != colours[0]
