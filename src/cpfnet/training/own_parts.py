"""Which code beside this package a plan trains with, for the Model's record."""

from __future__ import annotations

from typing import Any

from cpfnet.network import zoo
from cpfnet.network.encoder_zoo import ENCODERS
from cpfnet.planning import Plan
from cpfnet.registry import Registry
from cpfnet.training import loss


def own_parts(plan: Plan) -> dict[str, str]:
    """Network, encoder and loss of the user's own → name, and where it came from; empty where there is none."""
    network = plan.network
    named: dict[str, tuple[Registry[Any], Any]] = {
        "network": (zoo.NETWORKS, network.name),
        "encoder": (ENCODERS, network.options.get("encoder") if network.name in zoo.ENCODED else None),
        "loss": (loss.OWN, plan.training.loss.name),
    }
    origins = {kind: (name, registry.origin(name)) for kind, (registry, name) in named.items() if name is not None}
    return {kind: f"{name} ({origin})" for kind, (name, origin) in origins.items() if origin is not None}
