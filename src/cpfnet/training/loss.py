"""What training makes small, by name: overlap, cross-entropy, topology and boundary terms from MONAI, or one's own.

Every loss is reduced *per sample*, in float32: the mean over a large batch then equals the sum over its parts, which
makes gradient accumulation exact (a mean over a batch's valid pixels would not be). Dice pooled over the batch is the
exception, where the plan asks for it, and not to be had with accumulation. Pixels with code `IGNORED` (not annotated,
outside the region of interest, padding) count nowhere; a sample that has no other pixels has loss and gradient zero.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import BoundaryLoss, DiceLoss, FocalLoss, SoftclDiceLoss, TverskyLoss
from torch import distributed

from cpfnet.errors import NetworkError, PlanError
from cpfnet.labels import IGNORED, OUTSIDE, membership
from cpfnet.planning import Labels, Plan
from cpfnet.registry import Registry, in_module


@dataclass(frozen=True)
class Batch:
    """What the terms look at: ``(N, planes, *spatial)``, ``valid`` with one plane; zero where ignored, save ``logits``.

    ``exclusive``: a softmax over background and classes, else a sigmoid a region. ``tubular``: which structures are.
    """

    logits: torch.Tensor
    probabilities: torch.Tensor
    target: torch.Tensor
    valid: torch.Tensor
    exclusive: bool
    tubular: Sequence[int] = ()

    def mean(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, *spatial)`` → ``(N,)``: mean over the pixels that count."""
        valid = self.valid[:, 0]
        return (pixels * valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)

    def structures(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and target without the background plane."""
        first = int(self.exclusive)
        return self.probabilities[:, first:], self.target[:, first:]


def dice(batch: Batch, *, smooth: float = 1e-5, background: bool = True, pooled: bool = False) -> torch.Tensor:
    """1 − (2 Σpt + smooth) / (Σp + Σt + smooth), mean over the classes (with background, as the guide has it).

    ``pooled``: the sums are over the batch, of all processes, as in nnU-Net's batch Dice. A false alarm in a sample
    that lacks the class then costs as much as elsewhere; by itself, such a sample's term is 1 wherever Σp is far above
    ``smooth``.
    """
    first = 0 if background or not batch.exclusive else 1
    if pooled:
        probabilities, target = batch.probabilities[:, first:], batch.target[:, first:]
        sums = torch.stack([(probabilities * target), probabilities + target]).transpose(1, 2).flatten(2).sum(2)
        overlap, total = _over_processes(sums)
        return (1 - (2 * overlap + smooth) / (total + smooth)).mean().expand(len(target))
    loss = DiceLoss(smooth_nr=smooth, smooth_dr=smooth, reduction="none")
    return loss(batch.probabilities[:, first:], batch.target[:, first:]).flatten(1).mean(1)


def _over_processes(sums: torch.Tensor) -> torch.Tensor:
    """Summed over the processes that share a batch, with gradients."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return sums
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(sums)


def cross_entropy(batch: Batch, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean over pixels; overlapping regions: binary cross-entropy, mean over regions.

    With label smoothing ε the target is (1 − ε)·t + ε/K, K the planes of the softmax, 2 for a sigmoid (Szegedy et al.
    2016).
    """
    exclusive = batch.exclusive
    choices = batch.target.shape[1] if exclusive else 2
    target = (1 - label_smoothing) * batch.target + label_smoothing / choices
    if exclusive:
        return batch.mean(-(target * F.log_softmax(batch.logits, dim=1)).sum(1))
    return batch.mean(F.binary_cross_entropy_with_logits(batch.logits, target, reduction="none").mean(1))


def focal(batch: Batch, *, gamma: float = 2.0, alpha: float | None = None) -> torch.Tensor:
    """(1 − p)^γ times the cross-entropy (Lin et al. 2017); with γ = 0 it is `cross_entropy`."""
    exclusive = batch.exclusive
    loss = FocalLoss(gamma=gamma, alpha=alpha, use_softmax=exclusive, reduction="none")(batch.logits, batch.target)
    return batch.mean(loss.sum(1) if exclusive else loss.mean(1))


def tversky(batch: Batch, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1e-5) -> torch.Tensor:
    """1 − Σpt / (Σpt + α·false positives + β·false negatives) (Salehi et al. 2017), mean over the structures."""
    loss = TverskyLoss(alpha=alpha, beta=beta, smooth_nr=smooth, smooth_dr=smooth, reduction="none")
    return loss(*batch.structures()).flatten(1).mean(1)


def cldice(batch: Batch, *, iterations: int = 3, cldice_weight: float = 1.0) -> torch.Tensor:
    """Soft clDice (Shit et al. 2021), mean over the tubular classes, or over all structures where none is tubular."""
    probabilities, target = batch.structures()
    tubular = batch.tubular or range(target.shape[1])
    loss = SoftclDiceLoss(iter_=iterations, reduction="none")
    planes = [loss(probabilities[:, [k]], target[:, [k]]).flatten() for k in tubular]
    return cldice_weight * torch.stack(planes).mean(0)


def boundary(batch: Batch, *, boundary_weight: float = 0.01) -> torch.Tensor:
    """Mean of p times the signed distance, in pixels, to the true boundary, of structures (Kervadec et al. 2019)."""
    share = batch.valid.flatten(1).mean(1).clamp(min=torch.finfo(torch.float32).tiny)
    per_structure = BoundaryLoss(reduction="none")(*batch.structures())
    return boundary_weight * per_structure.mean(1) / share  # MONAI divides by all pixels, ignored ones too


LOSSES: Mapping[str, tuple[Callable[..., torch.Tensor], ...]] = {
    "dice+ce": (dice, cross_entropy),
    "dice": (dice,),
    "ce": (cross_entropy,),
    "focal": (focal,),
    "tversky": (tversky,),
    "dice+cldice": (dice, cldice),
    "dice+ce+cldice": (dice, cross_entropy, cldice),
    "dice+boundary": (dice, boundary),
}
"""Name → the terms that are added up; their keyword arguments are the options."""


Term = Callable[[Batch], torch.Tensor]
"""(N,) from a `Batch`: one of the functions above, its options chosen."""


def _check(name: str, term: object) -> None:
    """Refuse what cannot be a term."""
    try:
        inspect.signature(term).bind(None)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"the loss {name!r} cannot be called with a batch: {error}", fix="let it take (batch, *, …)"
        ) from None


OWN: Registry[Callable[..., torch.Tensor]] = Registry(
    "loss", "cpfnet.losses", error=PlanError, check=_check, where="training.loss.name"
)
"""Losses of the user's own; those of `LOSSES` are known beside them."""


def register(name: str, term: Callable[..., torch.Tensor]) -> None:
    """Let a loss of your own be named in a plan, as ``training.loss.name``.

    Args:
        name: what to call it.
        term: ``term(batch, *, …)`` → float32 ``(N,)``, the loss of each sample; ``batch`` is a `Batch`. Keyword-only
            arguments are what ``training.loss.options`` may set.

    Raises:
        PlanError: the name is taken, or it cannot be called so.

    Example:
        >>> def squared(batch, *, scale=1.0):
        ...     difference = (batch.probabilities - batch.target) ** 2
        ...     return scale * batch.mean(difference.sum(1))
        >>> cpfnet.losses.register("squared", squared)
    """
    if name in LOSSES:
        raise PlanError(f"a loss called {name!r} comes with cpfnet", fix="choose another name")
    OWN.register(name, term)


def _own_term(name: str, options: Mapping[str, Any], allow_import: Sequence[str]) -> Term:
    """A loss of the user's own with its options."""
    term = OWN.find(name, allow_import)
    try:
        inspect.signature(term).bind(None, **options)
    except TypeError as error:
        raise PlanError(
            f"the loss {name} takes {inspect.signature(term)}: {error}",
            where="training.loss.options",
            fix="set what it takes: --set 'training.loss.options={}' where it takes nothing",
        ) from None

    def checked(batch: Batch) -> torch.Tensor:
        losses = term(batch, **options)
        if not isinstance(losses, torch.Tensor) or losses.shape != (len(batch.logits),):
            found = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise NetworkError(
                f"the loss {name} gave {found} for a batch of {len(batch.logits)}",
                where="training.loss.name",
                fix="return (N,), the loss of each sample: with a mean over the batch accumulated gradients are wrong",
            )
        return losses.float()

    return checked


def added(
    terms: Sequence[Term],
    logits: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor,
    *,
    exclusive: bool,
    tubular: Sequence[int] = (),
) -> torch.Tensor:
    """The sum of terms, (N,): 0 and without gradient for a sample in which no pixel counts.

    Args:
        terms: what to add up.
        logits: float32 ``(N, planes, *spatial)``.
        target: of the same shape, 0 … 1, and 0 where ignored.
        valid: bool ``(N, 1, *spatial)``.
        exclusive, tubular: see `Batch`.
    """
    probabilities = (logits.softmax(1) if exclusive else logits.sigmoid()) * valid
    batch = Batch(logits, probabilities, target, valid.float(), exclusive, tubular)
    total = torch.stack([term(batch) for term in terms]).sum(0)
    return torch.where(valid.flatten(1).any(1), total, total * 0)


def weighted(
    of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], outputs: Sequence[torch.Tensor], labels: torch.Tensor
) -> torch.Tensor:
    """Σ wₖ·of(outputₖ, labels at its size), w = 1, ½, ¼ … scaled to a sum of 1 (Isensee et al. 2021)."""
    weights = [0.5**k / (2 - 0.5 ** (len(outputs) - 1)) for k in range(len(outputs))]
    losses = [w * of(output, _resized(labels, output)) for w, output in zip(weights, outputs, strict=True)]
    return torch.stack(losses).sum(0)


def _resized(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Labels ``(N, [planes,] *spatial)`` at the size of the logits, by nearest neighbour."""
    size = logits.shape[2:]
    if labels.shape[-len(size) :] == size:
        return labels
    planes = labels if labels.ndim == logits.ndim else labels[:, None]
    small = F.interpolate(planes.float(), size, mode="nearest-exact").to(labels.dtype)
    return small if labels.ndim == logits.ndim else small[:, 0]


class Loss:
    """(N, planes, *spatial) logits and (N, *spatial) uint8 codes → (N,) float32.

    A network with deep supervision gives, in training mode, logits of several sizes, full size first; their losses are
    added up by `weighted`.
    """

    def __init__(self, labels: Labels, terms: Sequence[Term]):
        self.labels = labels
        self.terms = terms
        self.tubular = [k for k, c in enumerate(labels.classes) if c.tubular]
        table = torch.from_numpy(membership(labels)).float()
        if labels.exclusive:
            background = torch.zeros(256, 1)
            background[[0, OUTSIDE]] = 1
            table = torch.cat([background, table], dim=1)
        self.planes = table

    def __call__(self, logits: torch.Tensor | Sequence[torch.Tensor], codes: torch.Tensor) -> torch.Tensor:
        """The loss of each sample.

        Raises:
            NetworkError: no logits, or (the first of them) of another shape than the codes and labels ask for.
        """
        outputs: list[Any] = list(logits) if isinstance(logits, (list, tuple)) else [logits]
        found = [tuple(o.shape) if isinstance(o, torch.Tensor) else type(o).__name__ for o in outputs]
        wanted = (len(codes), self.planes.shape[1], *codes.shape[1:])
        fitting = all(len(shape) == len(wanted) and shape[:2] == wanted[:2] for shape in found)
        if found[:1] != [wanted] or not fitting:
            raise NetworkError(
                f"the network's logits in training have the shapes {found}; the patches ask for {wanted}",
                fix="return logits of the input's size; for deep supervision several, full size first",
            )
        return weighted(self._of, outputs, codes)

    def _of(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        valid = (codes != IGNORED).unsqueeze(1)
        target = self.planes.to(logits.device)[codes.long()].movedim(-1, 1)
        return added(self.terms, logits, target, valid, exclusive=self.labels.exclusive, tubular=self.tubular)


def build(plan: Plan, allow_import: Sequence[str] = ()) -> Loss:
    """The loss that the plan names.

    Args:
        plan: `training.loss` and `labels`.
        allow_import: modules that may be imported, for a loss that is named as ``module:name``.

    Raises:
        PlanError: an unknown name or option, or an option's value that cannot be.
        CodeError: a module that is not allowed, cannot be imported, or does not define the loss.
    """
    name, options = plan.training.loss.name, dict(plan.training.loss.options)
    if name not in LOSSES:
        if in_module(name) or name in OWN.names():
            return Loss(plan.labels, [_own_term(name, options, allow_import)])
        near = difflib.get_close_matches(name, [*LOSSES, *OWN.names()], n=1)
        choices = f"choose one of {', '.join([*LOSSES, *OWN.names()])}, or code of your own as MODULE:NAME"
        raise PlanError(
            f"unknown loss {name!r}",
            where="training.loss.name",
            fix=f"did you mean {near[0]!r}?" if near else choices,
        )
    terms = []
    known: list[str] = []
    for term in LOSSES[name]:
        parameters = {k: p for k, p in inspect.signature(term).parameters.items() if p.kind is p.KEYWORD_ONLY}
        known += parameters
        chosen = {
            k: _number(k, options.pop(k), p.default, largest(term, k)) for k, p in parameters.items() if k in options
        }
        terms.append(partial(term, **chosen))
    if options:
        raise PlanError(
            f"loss {name!r} has no option {', '.join(map(repr, options))}",
            where="training.loss.options",
            fix=f"it knows: {', '.join(known)}" if known else "remove it",
        )
    if plan.training.loss.options.get("pooled") and plan.training.accumulate > 1:
        raise PlanError(
            f"Dice is pooled over one batch, and a step has {plan.training.accumulate}",
            where="training.loss.options.pooled",
            fix="set training.accumulate to 1, or leave pooled out",
        )
    return Loss(plan.labels, terms)


def largest(term: Callable[..., Any], name: str) -> float:
    """The largest value that an option of a term can have."""
    return 1 if name == "label_smoothing" or (term, name) == (focal, "alpha") else math.inf


def _number(name: str, value: Any, default: Any, most: float) -> Any:
    kind = bool if isinstance(default, bool) else int if isinstance(default, int) else (int, float)
    fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(default, bool) and 0 <= value <= most
    if not fits:
        wanted = "true or false" if kind is bool else "a whole number" if kind is int else "a number"
        raise PlanError(
            f"{value!r} cannot be",
            where=f"training.loss.options.{name}",
            fix=f"give {wanted} from 0{' to 1' * (most == 1)}, for example {0.25 if default is None else default}",
        )
    return value
