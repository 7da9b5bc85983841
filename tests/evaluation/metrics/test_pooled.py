"""Pixels of all cases as if they were one image: against scikit-learn on that one image."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.evaluation.metrics.pooled import PooledRanks
from cpfnet.evaluation.scores import PREDICTION, Scores
from cpfnet.image import Segmentation
from cpfnet.planning import LabelClass, Labels
from tests import synthetic

REGIONS = Labels(
    classes=(LabelClass(name="whole", values=(1, 2)), LabelClass(name="core", values=(2,))), exclusive=False
)


def images(sharpness: float, count: int = 5) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Probability, truth and valid pixels; each image with its own bias, so that pooling is not a mean."""
    rng = np.random.default_rng(3)
    out = []
    for _ in range(count):
        truth = rng.random((60, 70)) < rng.uniform(0.05, 0.3)
        x = sharpness * (np.where(truth, 1, -1) + rng.normal(0, 1, truth.shape) + rng.normal())
        out.append(((1 / (1 + np.exp(-x))).astype(np.float32), truth, rng.random(truth.shape) < 0.8))
    return out


@pytest.mark.parametrize(("sharpness", "tolerance"), [(0.1, 2e-5), (1, 2e-5), (4, 2e-5), (20, 1e-4)])
def test_auc_agrees_with_scikit_learn(sharpness, tolerance):
    ranks, drawn = PooledRanks(), images(sharpness)
    for probability, truth, valid in drawn:
        ranks.add("k", probability, truth, valid)
    probability, truth = (np.concatenate([each[i][each[2]] for each in drawn]) for i in (0, 1))
    expected = sklearn_metrics.roc_auc_score(truth, probability)
    assert ranks.auc("k") == pytest.approx(expected, abs=tolerance)
    alone = np.mean([sklearn_metrics.roc_auc_score(t[v], p[v]) for p, t, v in drawn])
    assert abs(alone - expected) > 0.01


def test_a_large_volume_is_counted_in_parts():
    probability, truth, valid = (np.tile(part, (1, 1000)) for part in images(1)[0])
    ranks = PooledRanks()
    tracemalloc.start()
    ranks.add("k", probability, truth, valid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ranks.auc("k") == pytest.approx(
        sklearn_metrics.roc_auc_score(truth[:, :70][valid[:, :70]], probability[:, :70][valid[:, :70]]), abs=2e-5
    )
    assert peak < 10 * probability.size  # bytes; a bin's index alone is 8 a pixel


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_ties_and_extremes(data):
    values = st.sampled_from([0, 1e-17, 1e-9, 0.3, 0.5, 0.7, 1 - 2**-24, 1])
    probability = data.draw(hnp.arrays(np.float32, (4, 5), elements=values))
    truth = data.draw(hnp.arrays(bool, (4, 5)))
    ranks = PooledRanks()
    for half in (np.s_[:2], np.s_[2:]):
        ranks.add("k", probability[half], truth[half], np.ones_like(truth[half]))
    if truth.all() or not truth.any():
        assert math.isnan(ranks.auc("k"))
    else:
        assert ranks.auc("k") == pytest.approx(sklearn_metrics.roc_auc_score(truth.ravel(), probability.ravel()))


def test_what_is_no_probability_has_no_pooled_auc():
    ranks, truth = PooledRanks(), np.array([[True, False]])
    for values in ([0.2, 0.1], [200, 3], [0.4, 0.3]):
        ranks.add("k", np.array([values], np.float32), truth, np.ones_like(truth))
    ranks.add("nan", np.array([[np.nan, 0.5]], np.float32), truth, np.ones_like(truth))
    assert ranks.auc("k") is ranks.auc("nan") is ranks.auc("never added") is None


def test_threads_lose_nothing():
    one, many, drawn = PooledRanks(), PooledRanks(), images(1) * 8
    for each in drawn:
        one.add("k", *each)
    threads = [Thread(target=many.add, args=("k", *each)) for each in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert many.auc("k") == one.auc("k")


def test_figures_are_those_of_one_large_image(tmp_path: Path):
    """Two regions, two readers, a region of interest: rows of the pool against the same pixels laid side by side."""
    rng = np.random.default_rng(1)
    items, planes, truths, insides = [], [], [], []
    for i in range(3):
        p = np.sort(rng.random((2, 20, 30)).astype(np.float32), axis=0)[::-1]  # the core lies in the whole
        prediction = np.where(p[1] > 0.5, 2, np.where(p[0] > 0.5, 1, 0)).astype(np.uint8)
        readers = [rng.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(2)]
        roi = (rng.random((20, 30)) < 0.5).astype(np.uint8)
        items.append(
            Item(
                f"c{i}",
                Segmentation(prediction, probabilities=p),
                {n: synthetic.write_raster(tmp_path / f"{n}{i}.png", r) for n, r in zip("ab", readers, strict=True)},
                roi=synthetic.write_raster(tmp_path / f"roi{i}.png", roi),
            )
        )
        planes.append(p[:, roi > 0])
        truths.append([r[roi > 0] for r in readers])
        insides.append(prediction[roi > 0])
    scores = evaluate(items, REGIONS)
    assert [(e["prediction"], e["reader"], e["class"]) for e in scores.pooled] == [
        (who, whom, label)
        for who, whom in ((PREDICTION, "a"), (PREDICTION, "b"), ("b", "a"))
        for label in ("whole", "core")
    ]
    p, prediction = np.concatenate(planes, axis=1), np.concatenate(insides)
    a, b = (np.concatenate([t[i] for t in truths]) for i in range(2))
    for entry in scores.pooled:
        least = 1 if entry["class"] == "whole" else 2
        truth = (a if entry["reader"] == "a" else b) >= least
        found = (prediction if entry["prediction"] == PREDICTION else b) >= least
        assert entry["cases"] == 3
        assert entry["dice"] == pytest.approx(sklearn_metrics.f1_score(truth, found))
        assert entry["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(truth, found))
        assert entry["specificity"] == pytest.approx(sklearn_metrics.recall_score(~truth, ~found))
        if entry["prediction"] == PREDICTION:
            assert entry["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, p[least - 1]), abs=5e-5)
        else:
            assert "auc" not in entry
    scores.save(tmp_path / "out")
    assert Scores.load(tmp_path / "out").pooled == scores.pooled
    assert "together" in scores.protocol["pooling"]
