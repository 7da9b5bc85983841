"""The losses as modules for a training loop of one's own: logits and labels in, reduced as PyTorch's losses are.

They add up the same terms as training does (`cpfnet.training.loss`), without a Plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from cpfnet.errors import CpfnetError, NetworkError
from cpfnet.training.loss import Term, added, boundary, cldice, cross_entropy, dice, focal, largest, tversky, weighted

Reduction = Literal["mean", "sum", "none"]


class SegmentationLoss(nn.Module):
    """What all losses of `cpfnet.losses` share.

    **Labels.** By default each pixel has one class: the network gives ``(N, classes, *spatial)``, background first, a
    softmax is taken, and labels are ``(N, *spatial)`` integers from 0 to classes − 1, of any integer type. With
    ``region=True`` classes may overlap: a sigmoid is taken of each plane, and labels are ``(N, classes, *spatial)`` of
    0 and 1 (integers or bool).

    **Reduction.** The loss is a float32 number for each sample. ``"none"`` gives ``(N,)``, ``"mean"`` their mean and
    ``"sum"`` their sum. The mean over a large batch thus equals the mean over its parts, and accumulating gradients is
    exact; cross-entropy is PyTorch's wherever no pixel is ignored.

    **Ignored pixels.** A pixel with the label ``ignore_index`` counts nowhere; with ``region=True``, one that has it in
    any plane. A sample that has no other pixels has loss and gradient zero. The default is PyTorch's, −100.

    **Deep supervision.** A list of logits of several sizes, full size first (as `CPFNetHR` gives in training), has the
    loss Σ wₖ·lossₖ with w = 1, ½, ¼ … scaled to a sum of 1.

    Args:
        terms: what is added up.
        ignore_index: label of pixels that do not count.
        region: overlapping classes.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        tubular: planes of structures (background left out) that the centreline term is for.

    Raises:
        CpfnetError: an option that cannot be; when called: labels that do not fit the logits. It names both.
        NetworkError: when called: logits of other shapes than the labels ask for.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        ignore_index: int,
        region: bool,
        reduction: Reduction,
        tubular: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise CpfnetError(f"reduction = {reduction!r}", fix="give 'mean', 'sum' or 'none'")
        self.terms = tuple(terms)
        self.ignore_index, self.region, self.reduction = ignore_index, region, reduction
        self.tubular = tuple(tubular)

    def forward(self, logits: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """``(N, classes, *spatial)`` logits and labels (see the class) → a number, or ``(N,)`` without reduction."""
        outputs: list[Any] = list(logits) if isinstance(logits, (list, tuple)) else [logits]
        self._check(outputs, labels)
        losses = weighted(self._of, outputs, labels)
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def _of(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits, counted = logits.float(), labels.long() != self.ignore_index
        if self.region:
            valid = counted.all(1, keepdim=True)
            target = labels.float() * valid
        else:
            valid, planes = counted.unsqueeze(1), logits.shape[1]
            # One row for each label, and one of zeros for what is ignored.
            table = torch.cat([torch.eye(planes), torch.zeros(1, planes)]).to(logits.device)
            target = table[torch.where(counted, labels.long(), planes)].movedim(-1, 1)
        return added(self.terms, logits, target, valid, exclusive=not self.region, tubular=self.tubular)

    def _check(self, outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> None:
        shapes = [tuple(o.shape) if isinstance(o, torch.Tensor) else type(o).__name__ for o in outputs]
        if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.is_complex():
            found = labels.dtype if isinstance(labels, torch.Tensor) else type(labels).__name__
            raise CpfnetError(f"labels are {found}", fix="give a tensor of integers, for example labels.long()")
        first = outputs[0] if outputs else None
        if not isinstance(first, torch.Tensor) or first.ndim not in (4, 5):
            raise NetworkError(f"logits of {shapes}", fix="give (N, classes, [depth,] height, width)")
        planes = first.shape[1]
        last = planes - 1 - (not self.region)  # of the structures
        if self.tubular and max(self.tubular) > last:
            raise CpfnetError(
                f"tubular names class {max(self.tubular) + (not self.region)}, and the network has {planes} planes",
                fix=f"name classes up to {planes - 1}",
            )
        if planes == 1 and not self.region:
            raise NetworkError(
                "one plane of logits: its softmax is 1 everywhere",
                fix="build the network with classes=2 (background and structure), or the loss with region=True",
            )
        wanted = tuple(first.shape) if self.region else (first.shape[0], *first.shape[2:])
        if tuple(labels.shape) != wanted:
            raise CpfnetError(
                f"labels of {tuple(labels.shape)} for logits of {tuple(first.shape)}",
                fix=f"give labels of {wanted}" + (" (without a channel axis: labels.squeeze(1))" * (not self.region)),
            )
        if any(
            not isinstance(o, torch.Tensor) or o.shape[:2] != first.shape[:2] or o.ndim != first.ndim for o in outputs
        ):
            raise NetworkError(
                f"logits of {shapes}", fix="for deep supervision give them alike in batch and classes, full size first"
            )
        high = 1 if self.region else planes - 1
        whole = labels.to(torch.int64)
        wrong = (whole != self.ignore_index) & ((whole < 0) | (whole > high))
        if wrong.any():
            values = whole[wrong].unique()[:5].tolist()
            raise CpfnetError(
                f"labels {', '.join(map(str, values))}, where 0 … {high} can be",
                fix="renumber them (a mask of 0 and 255: labels // 255), build the network with more classes, or name "
                "the label of pixels that do not count as ignore_index",
            )


def _chosen(function: Any, options: Mapping[str, Any]) -> Term:
    """A term with its options, each a number that it can be."""
    for name, value in options.items():
        most, whole = largest(function, name), name == "iterations"
        is_number = isinstance(value, int if whole else (int, float)) and 0 <= value <= most
        if not is_number and (name, value) != ("alpha", None):
            kind = "whole number" if whole else "number"
            raise CpfnetError(f"{name} = {value!r}", fix=f"give a {kind} from 0{' to 1' * (most == 1)}")
    return partial(function, **options)


def _structures(tubular: Sequence[int] | None, region: bool) -> list[int]:
    """Classes as the user counts them → structures, which leave out the background."""
    first = 0 if region else 1
    if tubular is not None and (not len(tubular) or min(tubular) < first):
        raise CpfnetError(f"tubular = {tubular!r}", fix=f"give labels of tubular classes, from {first}; None: all")
    return [] if tubular is None else [label - first for label in tubular]


class DiceLoss(SegmentationLoss):
    """1 − (2 Σpt + smooth) / (Σp + Σt + smooth), mean over the classes.

    Args:
        smooth: keeps empty classes defined: one that is neither there nor predicted has loss 0.
        background: whether the background is one of the classes (the guide's has it); no matter for regions.
        pooled: sum over the batch, of all processes, before dividing, as nnU-Net's batch Dice.
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Milletari et al., V-Net, 3DV 2016, without its squares; computed by MONAI.

    Example:
        >>> loss = cpfnet.losses.DiceLoss(background=False)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        smooth: float = 1e-5,
        background: bool = True,
        pooled: bool = False,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [_chosen(dice, {"smooth": smooth, "background": background, "pooled": pooled})]
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction)


class CrossEntropyLoss(SegmentationLoss):
    """Cross-entropy, mean over the pixels that count; of regions, binary cross-entropy, mean over them, too.

    Args:
        label_smoothing: ε, 0 … 1: the target is (1 − ε)·t + ε/K with K classes (2 for a region).
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Label smoothing: Szegedy et al., CVPR 2016.

    Example:
        >>> loss = cpfnet.losses.CrossEntropyLoss(label_smoothing=0.1)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [_chosen(cross_entropy, {"label_smoothing": label_smoothing})]
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction)


class DiceCELoss(SegmentationLoss):
    """Dice loss + cross-entropy: the guide's hybrid loss, and what training takes where nothing else is said.

    Args:
        smooth, background, pooled: as in `DiceLoss`.
        label_smoothing: as in `CrossEntropyLoss`.
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021.

    Example:
        >>> loss = cpfnet.losses.DiceCELoss(ignore_index=255)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        smooth: float = 1e-5,
        background: bool = True,
        pooled: bool = False,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [
            _chosen(dice, {"smooth": smooth, "background": background, "pooled": pooled}),
            _chosen(cross_entropy, {"label_smoothing": label_smoothing}),
        ]
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction)


class FocalLoss(SegmentationLoss):
    """(1 − p)^γ times the cross-entropy, for structures that are rare.

    Args:
        gamma: γ; 0 is cross-entropy.
        alpha: weight of the structures, 0 … 1, that of the background being 1 − alpha; None: no weights.
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; computed by MONAI.

    Example:
        >>> loss = cpfnet.losses.FocalLoss(gamma=2)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [_chosen(focal, {"gamma": gamma, "alpha": alpha})]
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction)


class TverskyLoss(SegmentationLoss):
    """1 − Σpt / (Σpt + α·false positives + β·false negatives), mean over the classes without background.

    Args:
        alpha, beta: costs of a false positive and of a false negative; ½ and ½ is Dice.
        smooth: added to numerator and denominator.
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Salehi et al., MLMI 2017; computed by MONAI.

    Example:
        >>> loss = cpfnet.losses.TverskyLoss(alpha=0.3, beta=0.7)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1e-5,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [_chosen(tversky, {"alpha": alpha, "beta": beta, "smooth": smooth})]
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction)


class DiceClDiceLoss(SegmentationLoss):
    """Dice loss + soft centreline Dice, for vessels and airways: a gap costs more than a rough edge.

    Args:
        smooth, background: as in `DiceLoss`.
        iterations: steps of the soft skeleton; at least the half width, in pixels, of the widest tube.
        cldice_weight: of the centreline term.
        ce: whether cross-entropy is added, too.
        tubular: labels of the tubular classes (planes of regions); None: all structures.
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Shit et al., clDice, CVPR 2021; computed by MONAI.

    Example:
        >>> loss = cpfnet.losses.DiceClDiceLoss(iterations=5)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        smooth: float = 1e-5,
        background: bool = True,
        iterations: int = 3,
        cldice_weight: float = 1.0,
        ce: bool = False,
        tubular: Sequence[int] | None = None,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [
            _chosen(dice, {"smooth": smooth, "background": background}),
            *([cross_entropy] if ce else []),
            _chosen(cldice, {"iterations": iterations, "cldice_weight": cldice_weight}),
        ]
        structures = _structures(tubular, region)
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction, tubular=structures)


class DiceBoundaryLoss(SegmentationLoss):
    """Dice loss + mean of p times the signed distance, in pixels, to the true boundary, of structures.

    Args:
        smooth, background: as in `DiceLoss`.
        boundary_weight: of the boundary term.
        ignore_index, region, reduction: see `SegmentationLoss`, and for errors, too.

    Source:
        Kervadec et al., MIDL 2019; computed by MONAI.

    Example:
        >>> loss = cpfnet.losses.DiceBoundaryLoss(boundary_weight=0.01)
        >>> loss(network(images), labels).backward()
    """

    def __init__(
        self,
        *,
        smooth: float = 1e-5,
        background: bool = True,
        boundary_weight: float = 0.01,
        ignore_index: int = -100,
        region: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        terms = [
            _chosen(dice, {"smooth": smooth, "background": background}),
            _chosen(boundary, {"boundary_weight": boundary_weight}),
        ]
        super().__init__(terms, ignore_index=ignore_index, region=region, reduction=reduction)
