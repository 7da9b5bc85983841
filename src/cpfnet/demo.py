"""All of cpfnet on real data that come with a dependency: one averaged brain, cut into slabs with gaps between them."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpfnet.errors import CpfnetError, OutputError
from cpfnet.files import check_free

if TYPE_CHECKING:
    from cpfnet.evaluation.scores import Scores

logger = logging.getLogger(__name__)

HONESTY = (
    "This is a demonstration on one averaged brain (test slabs lie 10 mm and more from training slabs), not a "
    "benchmark."
)

# Axial slices of the template, [first, last + 1): 1 mm each, all of the brain. Between what trains and what is held out
# lie nine unused slices.
SLABS = {
    "slab1": ("train", 6, 24),
    "slab2": ("val", 33, 39),
    "slab3": ("train", 48, 66),
    "slab4": ("test", 75, 81),
    "slab5": ("train", 90, 108),
    "slab6": ("test", 117, 123),
    "slab7": ("train", 132, 150),
}

DECLARATION = """\
# The ICBM 152 template (2009a, nonlinear, symmetric; Fonov et al., NeuroImage 2011), as the package nilearn ships it:
# T1-weighted MRI, averaged over 152 people, with the mean grey- and white-matter maps. Axial slabs; those that validate
# and test lie 10 mm and more from those that train.
name: brain template
modality: mr
channels: [T1]
labels: {{grey matter: 1, white matter: 2}}
split: {{val: [{val}], test: [{test}]}}
"""

# What the plan proposes is made for hours; this is made for minutes on two cores (200 steps of 8), without pretrained
# weights.
SETTINGS = (
    "spatial.mode=2d",
    "spatial.slices=axial",
    "spatial.neighbours=0",
    "spatial.patch=[128, 128]",
    "inference.tile=null",
    "network.name=cpfnet",
    "network.weights=none",
    "training.epochs=8",
    "training.samples=200",
    "training.batch=8",
    "training.accumulate=1",
    "training.learning_rate=0.001",
    "training.warmup=20",
    "training.ema=0.97",
    "training.validation=null",
)


def build_dataset(folder: Path | str) -> Path:
    """Make a NIfTI data set of the brain template that nilearn ships (nothing is downloaded).

    ``images/`` hold T1-weighted intensities 0…255 at 1 mm, ``labels/`` 1 for grey and 2 for white matter: the likelier
    of the two where together they are likelier than anything else, else 0. ``dataset.yaml`` says which slabs validate
    and test.

    Args:
        folder: to make; whole or not at all.

    Returns:
        The folder.

    Raises:
        CpfnetError: nilearn is not installed.
        OutputError: the folder exists or cannot be written.
    """
    if find_spec("nilearn") is None:
        raise CpfnetError("the package nilearn, which brings the data, is missing", fix='pip install "cpfnet[demo]"')
    import nibabel
    from nilearn import datasets

    folder = Path(folder)
    check_free(folder, fix="choose another folder")
    template = datasets.load_mni152_template(resolution=1)
    grey = np.asanyarray(datasets.load_mni152_gm_template(resolution=1).dataobj)
    white = np.asanyarray(datasets.load_mni152_wm_template(resolution=1).dataobj)
    image = np.rint(np.asanyarray(template.dataobj) * 255).astype(np.int16)
    label = np.where(grey + white < 0.5, 0, np.where(grey >= white, 1, 2)).astype(np.uint8)
    split = {name: ", ".join(s for s, (where, _, _) in SLABS.items() if where == name) for name in ("val", "test")}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / "dataset"
            for kind, array in (("images", image), ("labels", label)):
                (made / kind).mkdir(parents=True)
                volume = nibabel.Nifti1Image(array, template.affine)
                volume.header.set_xyzt_units("mm")
                for name, (_, first, last) in SLABS.items():
                    nibabel.save(volume.slicer[:, :, first:last], made / kind / f"{name}.nii.gz")
            (made / "dataset.yaml").write_text(DECLARATION.format(**split), encoding="utf-8")
            made.replace(folder)
    except OSError as error:
        fix = "choose a folder you may write to, with free space"
        raise OutputError(f"cannot be written: {error.strerror}", where=folder, fix=fix) from None
    return folder


def demo(
    out: Path | str = "cpfnet-demo",
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Scores:
    """Check, plan, train, predict and evaluate on the brain template, from nothing to a report; each step is logged.

    Args:
        out: folder for ``dataset/``, ``plan.yaml``, ``model/``, ``predictions/`` and ``evaluation/``.
        device: as for `cpfnet.train`.
        overwrite: replace what an earlier demonstration left in ``out``.
        progress: show bars.

    Returns:
        The scores of the held-out slabs.

    Raises:
        CpfnetError: nilearn is not installed, the template is not what it was, or ``out`` is in the way.
    """
    from cpfnet import api
    from cpfnet.data.dataset import load
    from cpfnet.inference.options import OutputOptions, PredictorOptions

    began = time.monotonic()
    out = Path(out)
    _clear(out, overwrite)
    logger.info(HONESTY)
    dataset = build_dataset(out / "dataset")
    cases = load(dataset).cases
    held_out = [case for case in cases if case.split == "test"]
    with _step(f"1/5 check    {dataset}: {len(cases)} slabs, {len(held_out)} of them for the test"):
        findings = api.check(dataset, progress=progress)
        for finding in findings:
            logger.warning(f"{finding.severity}: {finding.where}: {finding.what}")
        if any(finding.severity == "error" for finding in findings):
            fix = 'install the package again: pip install --force-reinstall "nilearn>=0.11"'
            raise CpfnetError("the template that nilearn ships is damaged", where=dataset, fix=fix)
    with _step(f"2/5 plan     {out / 'plan.yaml'}"):
        plan = api.plan(dataset, out=out / "plan.yaml", settings=SETTINGS, progress=progress)
    with (
        _step(f"3/5 train    {out / 'model'}: nearly all of the time; the first epoch shows how long"),
        _estimating(plan.training.epochs),
    ):
        model = api.train(dataset, out / "model", plan=plan, device=device, progress=progress)
    with _step(f"4/5 predict  {out / 'predictions'}"):
        inputs = [path for case in held_out for path in case.images]
        options, output = PredictorOptions(device=device), OutputOptions(overlays=True)
        outcomes = api.predict_files(model, inputs, out / "predictions", options, output, progress=progress)
        for outcome in outcomes:
            if outcome.status != "done":
                raise CpfnetError(f"not segmented: {outcome.message}", where=outcome.path)
    with _step(f"5/5 evaluate {out / 'evaluation'}"):
        scores = api.evaluate(dataset, out / "predictions", out=out / "evaluation", split="test", progress=progress)
    logger.info(_summary(scores, out, time.monotonic() - began))
    return scores


@contextmanager
def _step(title: str) -> Iterator[None]:
    """Log what begins, and how long it took."""
    logger.info(title)
    began = time.monotonic()
    yield
    logger.info(f"{title[:12].rstrip()} took {_duration(time.monotonic() - began)}")


@contextmanager
def _estimating(epochs: int, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Follow what a training logs; after its first epoch log how long the others will take."""
    handler, parent = _Estimate(epochs, clock), logging.getLogger("cpfnet")
    parent.addHandler(handler)  # after those that print, so that the epoch's own line comes first
    try:
        yield
    finally:
        parent.removeHandler(handler)


class _Estimate(logging.Handler):
    def __init__(self, epochs: int, clock: Callable[[], float]):
        super().__init__()
        self.epochs, self.clock = epochs, clock
        self.began = clock()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line.startswith("Training "):
            self.began = self.clock()
        elif line.startswith("epoch 1/") and self.epochs > 1:
            first, others = self.clock() - self.began, self.epochs - 1
            logger.info(
                f"The first epoch took {_duration(first)}: the other {others} end in about {_duration(others * first)}."
            )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def _clear(out: Path, overwrite: bool) -> None:
    """Make way in ``out``: an earlier demonstration is removed if asked, anything else is left alone."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    declaration = out / "dataset" / "dataset.yaml"
    ours = declaration.is_file() and declaration.read_text(encoding="utf-8").startswith(DECLARATION.split("\n")[0])
    if not ours:  # whatever is asked for
        check_free(out, fix="choose another folder")
    if not overwrite:
        raise OutputError(
            "holds an earlier demonstration", where=out, fix="replace it with --overwrite, or choose another folder"
        )
    (out / "plan.yaml").unlink(missing_ok=True)
    for name in ("model", "predictions", "evaluation", "dataset"):  # the data last: they mark the folder as ours
        shutil.rmtree(out / name, ignore_errors=True)


def _summary(scores: Scores, out: Path, seconds: float) -> str:
    cases = {row["case"] for row in scores.rows}
    lines = [f"Done in {_duration(seconds)}. Mean Dice of {len(cases)} held-out slabs:"]
    for label in ("grey matter", "white matter"):
        found = scores.of("dice", label)
        lines.append(f"  {label:14}{found['mean']:.3f}" if found else f"  {label:14}not defined")
    lines += [
        f"  report        {out / 'evaluation' / 'report.html'}",
        f"  masks         {out / 'predictions'}",
        f"  Model         {out / 'model'}",
        f"  data          {out / 'dataset'}",
        HONESTY,
    ]
    return "\n".join(lines)
