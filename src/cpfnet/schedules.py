"""Learning-rate schedules for a training loop of your own; see `cpfnet.training.schedule`."""

from cpfnet.errors import require_extras

with require_extras():
    from cpfnet.training.schedule import PolyLR

__all__ = ["PolyLR"]
