"""The page for a loss and an encoder of one's own: its module does what the page says of it."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import cpfnet
from cpfnet.network import zoo
from cpfnet.network.encoder_zoo import RESNETS
from cpfnet.training import loss
from tests.test_docs import ROOT, blocks
from tests.training.conftest import images_plan

PAGE = ROOT / "docs/how-to/own-parts.md"
MODULE, REGISTERED = blocks(PAGE, "python")


def test_the_module_of_the_page_trains_as_its_command_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(loss.OWN, "_registered", dict(loss.OWN.registered()))
    words = shlex.split(blocks(PAGE, "bash")[0].replace("\\\n", " "))
    settings = [after for word, after in itertools.pairwise(words) if word == "--set"]
    plan = images_plan().with_settings(["network.name=cpfnet", *settings])
    assert (plan.network.options, plan.training.loss.name) == ({"encoder": "my_parts:Pyramid"}, "my_parts:squared")
    network = zoo.build(plan.network.name, 3, 2, allow_import=["my_parts"], **plan.network.options, width=8)
    logits, codes = network(torch.rand(2, 3, 33, 47)), torch.randint(0, 2, (2, 33, 47), dtype=torch.uint8)
    loss.build(plan, ["my_parts"])(logits, codes).sum().backward()
    assert network.encoder.steps[0].weight.grad.any()
    sys.modules.pop("my_parts")
    exec(compile(REGISTERED, PAGE.name, "exec"), {})
    both = loss.build(images_plan(loss={"name": "dice+squared"}))(logits, codes)
    squared = loss.build(plan, ["my_parts"])(logits, codes) / 2
    torch.testing.assert_close(both, loss.build(images_plan(loss={"name": "dice"}))(logits, codes) + squared)
    sys.modules.pop("my_parts")


def test_the_weights_of_the_table_are_counted() -> None:
    stated = dict(re.findall(r"^\| `(resnet\d+)`.*?\| ([\d.]+) M \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    with torch.device("meta"):
        for encoder in RESNETS:
            count = sum(p.numel() for p in cpfnet.CPFNet(3, 4, encoder=encoder).parameters())
            assert stated[encoder] == f"{count / 1e6:.1f}"
