"""A plan for another task than the one that a data set declares: label values may agree all the same."""

from __future__ import annotations

from cpfnet.data.case import Dataset
from cpfnet.planning import Plan


def task_mismatch(plan: Plan, data: Dataset, whose: str, consequence: str) -> list[str]:
    """Where a plan was made for other classes or another modality than the data set declares.

    Args:
        plan: the plan.
        data: the data set.
        whose: "plan" or "Model".
        consequence: what follows of it.

    Returns:
        At most one sentence.
    """
    found = []
    if data.labels is not None:
        own, theirs = ([one.name for one in labels.classes] for labels in (plan.labels, data.labels))
        if own != theirs:
            found.append(f"classes are {', '.join(theirs)} here, and {', '.join(own)} in the {whose}")
    if data.modality is not None and data.modality != plan.modality:
        found.append(f"images are {data.modality} here, and {plan.modality} in the {whose}")
    return [f"{'; '.join(found)}: {consequence}"] if found else []
