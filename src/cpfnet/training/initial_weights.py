"""The network before its first step: random, with ImageNet's encoder, or with another Model's weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from cpfnet.errors import PlanError, TrainingError
from cpfnet.inference.model_arguments import open_model
from cpfnet.model import Model, untrained
from cpfnet.network.encoder import find_encoder
from cpfnet.network.pretrained.load import imagenet_encoder, load_imagenet
from cpfnet.planning import Plan
from cpfnet.training import loss

logger = logging.getLogger(__name__)


def first_network(
    plan: Plan, *, init: Path | None, random: bool, progress: bool, allow_import: Sequence[str] = ()
) -> nn.Module:
    """Build the plan's network on the CPU.

    Args:
        plan: `network`, and `training.seed` for what is random.
        init: a Model folder to take all weights from that fit, in place of ImageNet's.
        random: no other weights than random ones; a checkpoint will replace them.
        progress: show a bar while downloading.
        allow_import: modules that may be imported for code of the user's own.

    Raises:
        NetworkError, CodeError: see `cpfnet.model.untrained`.
        WeightsError: ImageNet's weights, or the file that the plan names, cannot be had.
        TrainingError: ``init`` is another network's.
        PlanError: `encoder_rate` or `frozen_statistics` for an encoder that is not there, or not pretrained.
    """
    torch.manual_seed(plan.training.seed)
    network = untrained(plan, allow_import)
    weights = plan.network.weights
    _check_fine_tuning(plan, network)
    if random:
        return network
    _check_pretrained(plan, network, init)
    if init is not None:
        _take(network, plan, open_model(init).allowing(tuple(allow_import)))
    elif weights != "none":
        if find_encoder(network) is not None:
            file = load_imagenet(network, weights, progress=progress)
            logger.info(f"Encoder weights from {file}")
        else:
            logger.warning(f"{_described(plan)} has no ImageNet weights: starting from scratch.")
    return network


def weights_of(init: Path | None) -> str:
    """SHA-256 of the weights that a run begins from; "" where it begins from no Model.

    Raises:
        CpfnetError: there is no such Model, or it is damaged.
    """
    return "" if init is None else open_model(init).weights_hash


def check_buildable(plan: Plan, allow_import: Sequence[str] = ()) -> None:
    """Refuse what cannot be built, before data are read: network, loss, options, or ImageNet weights that do not fit.

    Raises:
        CpfnetError: as `first_network` and `loss.build`.
    """
    loss.build(plan, allow_import)
    # In earnest: on PyTorch's meta device a network of the user's own need not be buildable.
    with torch.random.fork_rng(devices=[]):
        network = untrained(plan, allow_import)
    _check_fine_tuning(plan, network)
    if plan.network.weights != "none" and find_encoder(network) is not None:
        imagenet_encoder(network)


def _fine_tunes(plan: Plan) -> str | None:
    """The first setting that is for pretrained encoders alone."""
    training = plan.training
    if training.encoder_rate < 1:
        return "training.encoder_rate"
    return "training.frozen_statistics" if training.frozen_statistics else None


def _check_fine_tuning(plan: Plan, network: nn.Module) -> None:
    setting = _fine_tunes(plan)
    if setting and find_encoder(network) is None:
        raise PlanError(
            f"is for pretrained ResNet encoders, and {_described(plan)} has none",
            where=setting,
            fix="leave it out, or choose cpfnet, cpfnet-hr, cpfnet-guide (with a ResNet) or resnet34-unet",
        )


def _check_pretrained(plan: Plan, network: nn.Module, init: Path | None) -> None:
    setting = _fine_tunes(plan)
    scratch = plan.network.weights == "none" or find_encoder(network) is None
    if setting and init is None and scratch:
        raise PlanError(
            "is for pretrained encoders, and this one begins with random weights",
            where=setting,
            fix="leave it out, set network.weights to imagenet or a file, or start from a Model (--init)",
        )


def _take(network: nn.Module, plan: Plan, model: Model) -> None:
    """Give ``network`` what fits of a Model's weights, and log what does not."""
    theirs = model.plan.network
    own, given = network.state_dict(), model.network().state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    left = [k for k in own if k not in fitting]
    share = sum(v.numel() for v in fitting.values()) / sum(v.numel() for v in own.values())
    if share < 0.5:
        raise TrainingError(
            f"only {share:.0%} of its weights ({_described(model.plan)}) fit this network ({_described(plan)})",
            where=model.folder,
            fix=f"plan with its network (--network {theirs.name} --set "
            f"'network.options={json.dumps(theirs.options)}'), or start without --init",
        )
    network.load_state_dict({**own, **fitting})
    logger.info(f"Weights from {model.folder}" + (f"; of other shape, so new: {', '.join(left)}" if left else ""))


def _described(plan: Plan) -> str:
    options = "".join(f", {key} {value}" for key, value in plan.network.options.items())
    return f"{plan.network.name}, {plan.spatial.dims}-D{options}"
