"""Medical-image segmentation built on CPFNet: from a folder of scans and masks to masks that a clinic can use.

The verbs are the commands (`check`, `plan`, `train`, `predict`, `evaluate`, `compare`, `convert`, `export`, `push`,
`pull`, `pack`, `doctor`), `cross_validate` (`train --folds all`) and `compare_configurations` (with `--configurations
all`), the nouns what they pass on (`Image`, `Plan`, `Model`, `Segmentation`), and how to predict (`PredictorOptions`,
`OutputOptions`); `CPFNet` is the bare ``torch.nn.Module``. Everything loads when first used.

For a training loop of one's own: `load_imagenet`, and the modules `cpfnet.losses`, `cpfnet.metrics`,
`cpfnet.schedules` and `cpfnet.augment`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cpfnet.telemetry import switch_off

switch_off()  # before anything imports a runtime

__version__ = "0.1.0"

_HOME = {
    "check": "api",
    "plan": "api",
    "train": "api",
    "cross_validate": "api",
    "compare_configurations": "api",
    "predict": "api",
    "predict_files": "api",
    "evaluate": "api",
    "compare": "api",
    "convert": "api",
    "export": "api",
    "pack": "api",
    "push": "api",
    "pull": "api",
    "doctor": "installation",
    "read": "formats",
    "write": "formats",
    "CpfnetError": "errors",
    "Image": "image",
    "Segmentation": "image",
    "PredictorOptions": "inference.options",
    "OutputOptions": "inference.options",
    "Plan": "planning",
    "Model": "model",
    "CPFNet": "network.cpfnet",
    "CPFNetHR": "network.hr",
    "GuideCPFNet": "network.guide",
    "load_imagenet": "network.pretrained.load",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from cpfnet.api import check as check
    from cpfnet.api import compare as compare
    from cpfnet.api import compare_configurations as compare_configurations
    from cpfnet.api import convert as convert
    from cpfnet.api import cross_validate as cross_validate
    from cpfnet.api import evaluate as evaluate
    from cpfnet.api import export as export
    from cpfnet.api import pack as pack
    from cpfnet.api import plan as plan
    from cpfnet.api import predict as predict
    from cpfnet.api import predict_files as predict_files
    from cpfnet.api import pull as pull
    from cpfnet.api import push as push
    from cpfnet.api import train as train
    from cpfnet.errors import CpfnetError as CpfnetError
    from cpfnet.formats import read as read
    from cpfnet.formats import write as write
    from cpfnet.image import Image as Image
    from cpfnet.image import Segmentation as Segmentation
    from cpfnet.inference.options import OutputOptions as OutputOptions
    from cpfnet.inference.options import PredictorOptions as PredictorOptions
    from cpfnet.installation import doctor as doctor
    from cpfnet.model import Model as Model
    from cpfnet.network.cpfnet import CPFNet as CPFNet
    from cpfnet.network.guide import GuideCPFNet as GuideCPFNet
    from cpfnet.network.hr import CPFNetHR as CPFNetHR
    from cpfnet.network.pretrained.load import load_imagenet as load_imagenet
    from cpfnet.planning import Plan as Plan


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from cpfnet.errors import require_extras

        with require_extras():
            value = getattr(import_module(f"cpfnet.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'cpfnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
