"""How far predictions can be trusted to say when they are wrong: python benchmarks/trust.py MODEL DATASET

Segments the cases of DATASET that MODEL was not trained on, as they are and shifted (blurred, darker, brighter, noisy,
at a quarter of their resolution, volumes at half); then judges what the probabilities tell. Half of the cases as they
are (at random, 50 times) stand for validation cases: `cpfnet.inference.quality.estimate.fit` sees them alone, and the
figures of estimates and looks are of the other half. The Model's own temperature and threshold are applied.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.stats import spearmanr

from cpfnet import formats, preprocessing
from cpfnet.data.case import Case
from cpfnet.data.dataset import load
from cpfnet.errors import CpfnetError
from cpfnet.evaluation.metrics import binary as metrics
from cpfnet.inference.quality import estimate as quality
from cpfnet.inference.quality.entropy import entropy
from cpfnet.inference.sliding_window import predict_array
from cpfnet.inference.torch_backend.network import torch_backend
from cpfnet.labels import OUTSIDE, encode, membership
from cpfnet.model import Model
from cpfnet.planning import Plan
from cpfnet.preprocessing.postprocess import calibrate, decide

SPLITS = 50
SCORES = ("confidence", "promised Dice", "boundary certainty")


@dataclass
class Row:
    """One case under one shift.

    ``scores`` are those of `SCORES`, higher is better; ``caught`` is the share of wrong pixels that are among the tenth
    of the pixels that is most uncertain.
    """

    case: str
    shift: str
    dice: float
    confidences: tuple[float | None, ...]
    scores: tuple[float, ...]
    caught: float


def shifted(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """An image ``(channels, …)`` as it is and as other conditions would have it, in the range of its values."""
    yield "as it is", array
    x = array.astype(np.float32)
    full = 255.0 if array.dtype == np.uint8 else float(np.quantile(x, 0.995))
    unit = (x / full).clip(0, 1)
    flat = x.ndim == 3
    yield "blurred", ndimage.gaussian_filter(x, (0, *[3.0 if flat else 1.5] * (x.ndim - 1)))
    yield "darker (gamma 2)", full * unit**2
    yield "brighter (gamma 1/2)", full * unit**0.5
    yield "noise (SD 8 %)", x + np.random.default_rng(0).normal(0, 0.08 * full, x.shape).astype(np.float32)
    small = ndimage.zoom(x, (1, *[0.25 if flat else 0.5] * (x.ndim - 1)), order=1)
    yield "coarse", ndimage.zoom(small, [n / m for n, m in zip(x.shape, small.shape, strict=True)], order=1)


def judge(case: str, shift: str, probabilities: np.ndarray, codes: np.ndarray, plan: Plan, threshold: float) -> Row:
    """What calibrated probabilities tell, and what is true.

    Args:
        case, shift: names.
        probabilities: on the network's grid.
        codes: the label there.
        plan, threshold: the Model's.
    """
    labels, valid = plan.labels, codes < OUTSIDE
    classes = decide(iter(probabilities), labels, threshold)
    planes = probabilities[1:] if labels.exclusive else probabilities
    masks = [classes == k + 1 for k in range(len(planes))] if labels.exclusive else list(classes)
    truths = [members[codes] for members in membership(labels).T]
    dices = [metrics.dice(metrics.count(m, t, valid)) for m, t in zip(masks, truths, strict=True)]
    promised = [2 * p[m].sum() / max(m.sum() + p.sum(), 1) for p, m in zip(planes, masks, strict=True)]
    uncertain = entropy(probabilities, exclusive=labels.exclusive)
    found = np.any(masks, axis=0)
    band = ndimage.binary_dilation(found, iterations=2) & ~ndimage.binary_erosion(found, iterations=2)
    wrong = np.any([m != t for m, t in zip(masks, truths, strict=True)], axis=0) & valid
    limit = np.quantile(uncertain[valid], 0.9)
    sure = quality.confidences(probabilities, classes, labels)
    known = [value for value in sure if value is not None]
    return Row(
        case,
        shift,
        float(np.nanmean(dices)),
        sure,
        (
            float(np.mean(known)) if known else 0.0,
            float(np.mean(promised)),
            1 - float(uncertain[band].mean()) if band.any() else 0.0,
        ),
        float((wrong & (uncertain > limit)).sum() / max(wrong.sum(), 1)),
    )


def segment(model: Model, cases: list[Case]) -> Iterator[Row]:
    """Every case under every shift."""
    backend, plan = torch_backend(model), model.plan
    for case in cases:
        image = formats.read(list(case.images))
        codes = encode(formats.read(next(iter(case.labels.values()))), plan.labels)
        for shift, array in shifted(image.array):
            pixels, trace = preprocessing.apply(replace(image, array=array), plan)
            probabilities = predict_array(backend, pixels, plan)
            calibrate(probabilities, model.fitted.temperature, exclusive=plan.labels.exclusive)
            label = preprocessing.apply_codes(codes, trace)
            yield judge(case.id, shift, probabilities, label, plan, model.fitted.threshold[0])


def auroc(score: np.ndarray, failed: np.ndarray) -> float:
    """Chance that a failure scores lower than a success."""
    return metrics.auc(-score, failed)


def report(rows: list[Row], plan: Plan) -> None:
    """Print the tables."""
    names = list(dict.fromkeys(row.case for row in rows if row.shift == "as it is"))
    plain = {row.case: row for row in rows if row.shift == "as it is"}
    tenth = float(np.quantile([row.dice for row in plain.values()], 0.1))
    mean = np.mean([row.dice for row in plain.values()])
    print(f"{len(names)} cases as they are: Dice {mean:.3f}, a tenth below {tenth:.3f}\n")
    print(
        "| images | n | Dice | estimate errs by | mean Dice errs by | looked at: failures | successes "
        "| errors in the most uncertain 10 % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    shifts = list(dict.fromkeys(row.shift for row in rows))
    for shift in shifts:
        some = [row for row in rows if row.shift == shift]
        errors: list[float] = []
        plains: list[float] = []
        bad: list[bool] = []
        good: list[bool] = []
        for split in range(SPLITS):
            order = np.random.default_rng(split).permutation(len(names))
            fitting = [names[k] for k in order[: len(names) // 2]]
            fitted, _ = quality.fit(
                [plain[n].confidences for n in fitting], [plain[n].dice for n in fitting], plan.labels
            )
            average = float(np.mean([plain[name].dice for name in fitting]))
            for row in some:
                if row.case in fitting or fitted is None:
                    continue
                assessment = quality.assess(row.confidences, [fitted], plan.labels)
                (bad if row.dice < tenth else good).append(bool(assessment.look))
                if assessment.dice is not None:
                    errors.append(abs(assessment.dice - row.dice))
                    plains.append(abs(average - row.dice))
        dice, caught = np.mean([row.dice for row in some]), np.mean([row.caught for row in some])
        figures = [f"{np.mean(values):.3f}" if values else "-" for values in (errors, plains)]
        figures += [f"{np.mean(values):.0%}" if values else "-" for values in (bad, good)]
        print(f"| {shift} | {len(some)} | {dice:.3f} | {' | '.join(figures)} | {caught:.0%} |")
    print(
        f"\n| score | Spearman with Dice, as they are | AUROC, as they are, Dice < {tenth:.2f} "
        f"| all, Dice < {tenth:.2f} | all, Dice < 0.7 |"
    )
    print("|---|---|---|---|---|")
    for k, name in enumerate(SCORES):
        here = np.array([(row.scores[k], row.dice) for row in plain.values()])
        everywhere = np.array([(row.scores[k], row.dice) for row in rows])
        print(
            f"| {name} | {spearmanr(*here.T)[0]:.2f} | {auroc(here[:, 0], here[:, 1] < tenth):.3f} "
            f"| {auroc(everywhere[:, 0], everywhere[:, 1] < tenth):.3f} "
            f"| {auroc(everywhere[:, 0], everywhere[:, 1] < 0.7):.3f} |"
        )
    below = [sum(row.dice < limit for row in rows) for limit in (tenth, 0.7)]
    print(f"\nfailures: {below[0]} of {len(rows)} below {tenth:.2f}, {below[1]} below 0.7")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cases", type=int, help="at most so many of DATASET")
    options = parser.parse_args()
    try:
        model = Model.load(options.model)
        seen = set(model.metrics.get("cases", {}).get("train", []))
        cases = [case for case in load(options.dataset).cases if case.labels and case.id not in seen][: options.cases]
    except CpfnetError as error:
        raise SystemExit(str(error)) from None
    report(list(segment(model, cases)), model.plan)


if __name__ == "__main__":
    main()
