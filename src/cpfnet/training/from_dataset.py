"""From a data set to a Model with its report.

What is cheap to find wrong comes first; libraries that train load late.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.data.task_mismatch import task_mismatch
from cpfnet.errors import OutputError
from cpfnet.inference.cross_validation import is_cross_validation
from cpfnet.planning import Plan
from cpfnet.training.distributed.process_group import ProcessGroup, find_group, joined
from cpfnet.training.options import PlanOptions, TrainOptions

if TYPE_CHECKING:
    from cpfnet.model import Model

logger = logging.getLogger(__name__)


def train_on_dataset(
    dataset: Path, out: Path, wanted: PlanOptions, options: TrainOptions, group: ProcessGroup | None = None
) -> Model:
    """Train a Model and write it, with a report, to ``out``.

    Args:
        dataset: folder, dataset.yaml, CSV manifest or datalist JSON.
        out: the Model folder; must not exist, unless it is resumed.
        wanted: the plan.
        options: how to train.
        group: this process among those of the run; default: as the options and the environment say.

    Raises:
        CpfnetError: the data, plan, weights, devices or ``out`` do not allow it; a process was killed.
        KeyboardInterrupt: once a checkpoint is written.
    """
    if is_cross_validation(out):
        raise OutputError(
            "holds a cross-validation",
            where=out,
            fix="add --folds all, or --fold all for a Model of all its cases; or choose another folder",
        )
    group = group or find_group(options.devices, options.nodes)
    with ExitStack() as holding, joined(group, options.device):
        data, plan = group.run_on_main(lambda: prepare(dataset, out, wanted, options, group, holding))

        from cpfnet.model import Model
        from cpfnet.training.report import write_report
        from cpfnet.training.run import train

        work = partial(train, data, plan, out, options)
        if group.size == 1 and options.devices > 1:
            from cpfnet.training.distributed.launch import start

            start(work, options.devices, device=options.device)
            model = Model.load(out, allow_import=options.allow_import)
        else:
            model = work(group=group)
        group.run_on_main(lambda: write_report(model, data, device=options.device, progress=options.progress))
    return model


def prepare(
    dataset: Path, out: Path, wanted: PlanOptions, options: TrainOptions, group: ProcessGroup, holding: ExitStack
) -> tuple[Dataset, Plan]:
    """Refuse what cannot be trained, choose the plan, and hold the run's folder for as long as ``holding`` is open."""
    data = load(dataset)
    given = Plan.load(wanted.plan) if isinstance(wanted.plan, Path) else wanted.plan
    if given is not None:
        for warning in task_mismatch(given, data, "plan", "what is learned are the plan's, by their label values"):
            logger.warning(warning)

    from cpfnet.training.checkpoint import RunFolder
    from cpfnet.training.distributed.process_group import check_devices
    from cpfnet.training.initial_weights import check_buildable
    from cpfnet.training.lock import locked
    from cpfnet.training.samples.patches import check_shares

    folder = RunFolder(out)
    folder.check(resume=True)  # before anything is written into what is not ours, and all images are read for a plan
    holding.enter_context(locked(folder.work))
    folder.check(resume=options.resume)
    if options.devices > 1:
        check_devices(options.device, options.devices)
    if given is None:
        given = folder.first_plan() if options.resume else _propose(data, wanted, options)
    plan = wanted.change(given)
    if (plan.network.weights == "none") != (given.network.weights == "none"):
        logger.warning(
            f"network.weights is {plan.network.weights!r} now; "
            f"training.learning_rate ({plan.training.learning_rate:g}), network.options and the channels' "
            f"intensities stay as they were planned for {given.network.weights!r}: "
            f"cpfnet plan --weights {plan.network.weights} proposes others"
        )
    check_buildable(plan, options.allow_import)
    check_shares(plan.training, max(group.size, options.devices))
    return data, plan


def _propose(data: Dataset, wanted: PlanOptions, options: TrainOptions) -> Plan:
    """The plan where none is given; with the network of the Model whose weights to start from."""
    from cpfnet.inference.model_arguments import open_model
    from cpfnet.planner.fingerprint import fingerprint
    from cpfnet.planner.machine import Memory
    from cpfnet.planner.proposal import network_options, propose
    from cpfnet.planner.training import expected_time

    logger.info("No plan given: using the proposed one (cpfnet plan shows it).")
    # The weights of an earlier Model fit its own network.
    same = None if options.init is None or wanted.network is not None else open_model(options.init).plan.network
    network, weights = (wanted.network, wanted.weights) if same is None else (same.name, wanted.weights or same.weights)
    found = fingerprint(data, progress=options.progress)
    plan, reasons = propose(
        found,
        data,
        network=network,
        weights=weights,
        memory=Memory.found(options.device),
        options=network_options(wanted.settings) if same is None else same.options,
    )
    logger.info("Expected for the plan as proposed: %s.", expected_time(reasons))
    return plan if same is None else plan.with_settings([("network.options", same.options)])
