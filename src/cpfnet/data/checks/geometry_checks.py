"""What can be wrong with where things lie.

That is labels off their image's grid, mirrored or outside, fourth axes, odd spacings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from cpfnet.data.checks.file_summary import Content, Examined
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.finding import Finding
from cpfnet.formats.orientation import orientation_mismatch
from cpfnet.image import geometry_difference, spacing_of

_AXES = ("depth", "height", "width")
_SIDES = ("left–right", "front–back", "head–feet")


def geometry(examined: Examined, fixes: FixSuggestions) -> Iterator[Finding]:
    """Each file of a case against the grid of its first image."""
    readable = [content for content in examined.contents if content.readable]
    if not readable or readable[0] not in examined.images:
        return
    first = readable[0]
    for content in readable[1:]:
        difference = geometry_difference(first.shape, first.affine, content.shape, content.affine)
        if difference is not None:
            yield _off_grid(examined, first, content, difference, fixes)


def _off_grid(examined: Examined, first: Content, content: Content, difference: str, fixes: FixSuggestions) -> Finding:
    where, image = fixes.shown(content.path), fixes.shown(first.path)
    kind = "size" if first.shape != content.shape else "affine"
    what = f"does not lie on the grid of {image}: {difference} (that image first)"
    fix = f"resample `{where}` onto the grid of `{image}`"
    stored = orientation_mismatch(first.shape, first.orientation, content.shape, content.orientation)
    if stored:
        fix = f"turn the pixels of `{where}` as viewers show `{image}`, and save it without an orientation tag"
        return Finding(
            "error", "orientation", where, stored, f"{fix}; or {fixes.drop(examined.case)}", examined.case.id
        )
    copied = f"copy the affine of `{image}` into `{where}`"
    if kind == "affine":
        fix = f"if their pixels line up, {copied}, else {fix}"
        if mirrored := _mirrored(first, content):
            kind = "flip"
            sides, how, lossless = mirrored
            what = f"is mirrored against {image} ({sides}): {how}"
            fix = f"resample `{where}` onto the grid of `{image}`, which turns the axis and loses nothing"
            if not lossless:
                fix = (
                    f"if the drawing fits the picture pixel by pixel, {copied}, else resample `{where}` onto the grid "
                    f"of `{image}`"
                )
    outside, drawn = content.outside
    if outside and kind != "flip":
        kind = "outside"
        what += f"; {outside / drawn:.0%} of what is drawn ({outside} of {drawn} voxels) lies outside the image"
    if drawn and outside == drawn and kind == "outside":
        fix = f"replace `{where}` by the label of `{image}`: this one seems to belong to another"
        if first.shape == content.shape:
            fix += f", or if their pixels line up, {copied}"
    return Finding("error", kind, where, what, f"{fix}; or {fixes.drop(examined.case)}", examined.case.id)


def _mirrored(first: Content, content: Content) -> tuple[str, str, bool] | None:
    """Which sides are swapped between two grids of one size, and whether it is only the order of storage."""
    if first.affine is None or content.affine is None:
        return None
    steps = np.linalg.inv(first.affine) @ content.affine
    signs = np.diag(steps)[:3]
    if np.allclose(steps[:3, :3], np.diag(np.sign(signs)), atol=1e-3) and (signs < 0).any():
        turned = np.flatnonzero(signs < 0)
        runs = np.abs(first.affine[:3, :3] / np.array(spacing_of(first.affine))).argmax(axis=0)
        sides = _named(runs[turned])
        axes = " and ".join(_AXES[i] for i in turned)
        shift = np.where(signs < 0, np.array(first.shape) - 1, 0)
        if np.allclose(steps[:3, 3], shift, atol=1e-2):
            return sides, f"the same place, but its {axes} axis runs the other way", True
        return sides, f"its {axes} axis runs the other way, and to another place", False
    turn = content.affine[:3, :3] @ np.linalg.inv(first.affine[:3, :3])
    signs = np.diag(turn)
    if np.allclose(turn, np.diag(np.sign(signs)), atol=1e-3) and (signs < 0).any():
        return _named(np.flatnonzero(signs < 0)), "its affine counts the patient's axes the other way", False
    return None


def _named(world: np.ndarray) -> str:
    sides = " and ".join(_SIDES[i] for i in sorted(world))
    return sides + (": LPS taken for RAS?" if sorted(world) == [0, 1] else "")


def fourth_axes(whole: Sequence[Examined], usual: int, fixes: FixSuggestions) -> Iterator[Finding]:
    """Files of several time points or channels.

    Among others with ``usual`` channels, or all where nobody declared any.
    """
    fourth = [(e, c) for e in whole for c in e.images if c.fourth]
    for one, content in fourth:
        if one.channels != usual:
            where = fixes.shown(content.path)
            what = (
                f"has a fourth axis of {content.channels} (time points?), the others have {usual} "
                f"channel{'s' * (usual > 1)}"
            )
            fix = f"keep what was labelled of the fourth axis in `{where}`; or {fixes.drop(one.case)}"
            yield Finding("error", "fourth-axis", where, what, fix, one.case.id)
    if len(fourth) == len(whole) and fixes.dataset.channels is None and all(e.channels == usual for e, _ in fourth):
        names = ", ".join(f"channel{i}" for i in range(usual))
        what = f"every volume has a fourth axis of {usual}, which is read as channels"
        fix = f"if they are channels, {fixes.declare(f'channels: [{names}]')}; "
        fix += "or if they are time points, keep the one that was labelled in each file"
        yield Finding("warning", "fourth-axis", fixes.dataset.name, what, fix)


def spacings(volumes: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Compared sorted by size, because the stored axes of volumes differ; shown as (x, y, z), as headers hold them."""
    if not volumes:
        return
    spacings_xyz = [spacing_of(e.images[0].affine)[::-1] for e in volumes if e.images[0].affine is not None]
    spacings = np.sort(spacings_xyz, axis=1)
    ratios = spacings / np.median(spacings, axis=0)
    usual = Counter(tuple(float(f"{value:.4g}") for value in s) for s in spacings_xyz).most_common(1)[0][0]
    outlying = ((ratios > 3) | (ratios < 1 / 3)).any(axis=1)
    for one, found, far in zip(volumes, spacings_xyz, outlying, strict=True):
        if far:
            where = fixes.shown(one.images[0].path)
            what = f"spacing {_mm(found)} (x × y × z), far from the others' {_mm(usual)}"
            fix = f"correct the spacing to {_mm(usual)} in the headers of {fixes.quoted(one.case.files)}"
            yield Finding("warning", "spacing", where, what, f"{fix}; or {fixes.drop(one.case)}", one.case.id)
    rest = spacings[~outlying]
    if len(rest) and (rest.max(axis=0) > 1.5 * rest.min(axis=0)).any():
        what = f"spacings differ: from {_mm(rest.min(axis=0))} to {_mm(rest.max(axis=0))} (smallest axis first)"
        fix = "nothing needs to be done: `cpfnet plan` proposes one spacing to resample to"
        yield Finding("note", "spacing", fixes.dataset.name, what, fix)


def _mm(spacing: Sequence[float] | np.ndarray) -> str:
    return " × ".join(f"{value:.4g}" for value in spacing) + " mm"
