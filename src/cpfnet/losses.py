"""Losses for a training loop of your own; see `cpfnet.training.loss_modules`."""

from cpfnet.errors import require_extras

with require_extras():
    from cpfnet.training.loss import Batch, register
    from cpfnet.training.loss_modules import (
        CrossEntropyLoss,
        DiceBoundaryLoss,
        DiceCELoss,
        DiceClDiceLoss,
        DiceLoss,
        FocalLoss,
        SegmentationLoss,
        TverskyLoss,
    )

__all__ = [
    "Batch",
    "CrossEntropyLoss",
    "DiceBoundaryLoss",
    "DiceCELoss",
    "DiceClDiceLoss",
    "DiceLoss",
    "FocalLoss",
    "SegmentationLoss",
    "TverskyLoss",
    "register",
]
