"""Metrics for a loop of your own; arguments and conventions are those of `cpfnet.evaluation.metrics.of_masks`."""

from cpfnet.evaluation.metrics.of_masks import (
    accuracy,
    assd,
    auc,
    cldice,
    confusion,
    dice,
    hd95,
    iou,
    mcc,
    nsd,
    precision,
    score,
    sensitivity,
    specificity,
    thin_recall,
)

__all__ = [
    "accuracy",
    "assd",
    "auc",
    "cldice",
    "confusion",
    "dice",
    "hd95",
    "iou",
    "mcc",
    "nsd",
    "precision",
    "score",
    "sensitivity",
    "specificity",
    "thin_recall",
]
