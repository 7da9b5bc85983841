"""A Model as a MONAI bundle: a folder that MONAI's tools verify, run and take a network from, with all that it takes.

configs/metadata.json            what it is for, what goes in and comes out, how well it did (`metadata`)
configs/inference.json           from image files to masks, by the same code as ``cpfnet predict`` (`running`)
configs/metadata.schema.json     what MONAI demands of the first, so that `verify_metadata` takes no network
models/                          the Model: plan, weights as safetensors, what was fitted
docs/README.md                   all this for people
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cpfnet.errors import CodeError, OutputError
from cpfnet.files import check_free, check_writable
from cpfnet.model import Model, is_model
from cpfnet.monai_bundle.metadata import describe
from cpfnet.registry import in_module
from cpfnet.text import markdown

INFERENCE: dict[str, Any] = {
    "bundle_root": ".",
    "model_dir": "$@bundle_root + '/models'",
    "dataset_dir": "$@bundle_root + '/images'",
    "output_dir": "$@bundle_root + '/masks'",
    "device": "auto",
    "network_def": {"_target_": "cpfnet.monai_bundle.run.network", "folder": "@model_dir"},
    "run": {
        "_target_": "cpfnet.monai_bundle.run.predict",
        "folder": "@model_dir",
        "images": "@dataset_dir",
        "out": "@output_dir",
        "device": "@device",
        "backend": "torch",
    },
}
"""``configs/inference.json``; with the reference backend, masks are the same on every machine as far as torch's are."""


def write_bundle(model: Model, out: Path, *, overwrite: bool = False) -> Path:
    """Write a Model as a MONAI bundle, whole or not at all.

    Args:
        model: plan, weights, what was fitted.
        out: the folder to make; the bundle is called as it is.
        overwrite: replace ``configs``, ``models`` and ``docs`` of an earlier bundle; nothing else is ever replaced.

    Returns:
        ``out``.

    Raises:
        WeightsError, NetworkError: the Model's network cannot be built (`Model.network`).
        CodeError: it is code in a module: MONAI starts a bundle, and there the user has no way to allow the module.
        OutputError: ``out`` exists, is no bundle, or cannot be written; nothing is left behind then.
    """
    network = model.plan.network
    if own := [name for name in (network.name, network.options.get("encoder")) if in_module(str(name))]:
        raise CodeError(
            f"{own[0]} is code in a module, and a bundle cannot allow it to be imported",
            where=model.folder,
            fix="export it --to onnx; or let an installed package offer it as an entry point, and train with that name",
        )
    model.network()  # whether it fits its weights, before anything is written; and reads them, which may lie in ``out``
    replaces = _is_bundle(out)
    check_free(out, overwrite=overwrite, fix=None if replaces else "write to another folder")
    if out.exists() and not replaces:
        raise OutputError(
            "is no bundle of a Model, and nothing else is replaced", where=out, fix="write to another folder"
        )
    check_writable(out.parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(
            prefix=".bundle-", dir=out if replaces else out.parent
        ) as temporary:  # on the same disk
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            _write(model, new, name=out.name)
            if not replaces:
                new.rename(out)
                return out
            old.mkdir()
            for part in list(new.iterdir()):  # what else the user keeps in it stays
                if (out / part.name).exists():
                    (out / part.name).rename(old / part.name)
                part.rename(out / part.name)
    except (OSError, OutputError) as error:
        what = error.what if isinstance(error, OutputError) else f"cannot be written: {error.strerror or error}"
        raise OutputError(what, where=out, fix="choose a folder you may write to, with free space") from None
    return out


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "metadata.json").is_file() and is_model(folder / "models")


def _write(model: Model, folder: Path, *, name: str) -> None:
    replace(model).save(folder / "models")  # a copy: saving tells a Model where it lies
    configs, docs = folder / "configs", folder / "docs"
    for place in (configs, docs):
        place.mkdir()
    for file, content in (("metadata.json", describe(model)), ("inference.json", INFERENCE)):
        (configs / file).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    shutil.copyfile(str(files(__package__) / "metadata_schema.json"), configs / "metadata.schema.json")
    (docs / "README.md").write_text(_readme(model, name), encoding="utf-8")


def _readme(model: Model, name: str) -> str:
    began = ", and training began from ImageNet weights, which have terms of their own" * (
        model.plan.network.weights == "imagenet"
    )
    return f"""{model.card()}
# The bundle {markdown(name)}

A MONAI bundle. It needs `pip install "cpfnet[train]" fire jsonschema`; run these in its folder, or add
`--bundle_root FOLDER`:

```bash
python -m monai.bundle verify_metadata --meta_file configs/metadata.json --filepath configs/metadata.schema.json
python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir MASKS
```

The second writes the masks that `cpfnet predict models IMAGES -o MASKS --backend torch` writes. The network with its
weights:

```python
from monai.bundle import ConfigParser

parser = ConfigParser()
parser.read_config("configs/inference.json")
network = parser.get_parsed_content("network_def")  # takes what preprocessing gives, gives logits
```

- `configs/metadata.json`: what goes in and comes out. Authors and copyright are for you to fill in.
- `models/`: the plan, the weights as safetensors (no code runs when they load; there is no pickled `model.pt`), what
  was fitted, the scores with the names of the cases.

## Licence

cpfnet, which the bundle calls, is under the Apache License 2.0. The weights are their owner's to license; nothing is
stated here{began}.
"""
