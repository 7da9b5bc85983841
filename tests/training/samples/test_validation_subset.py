"""What is validated after each epoch: the same every time, with every class, inside the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.inference.sliding_window import predict_array
from cpfnet.planning import Plan
from cpfnet.training.samples.cache import ANNOTATED, Cached
from cpfnet.training.samples.validation_subset import choose_cases, choose_pieces, joined
from cpfnet.training.validation import validate
from tests.training.conftest import volumes_plan


def case(folder: Path, name: str, codes: np.ndarray) -> Cached:
    """As the cache writes one: codes of one reader, and where its structures are."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "codes.npy", codes[None])
    found = [np.flatnonzero(codes == code) for code in np.unique(codes) if code]
    flat = np.concatenate([np.arange(3), *found])
    np.save(folder / "positions.npy", flat.astype(np.int64))
    positions, start = [(0, ANNOTATED, 0, 3)], 3
    for code, places in zip([int(code) for code in np.unique(codes) if code], found, strict=True):
        positions.append((0, code, start, start + len(places)))
        start += len(places)
    return Cached(name, folder, ("reader",), tuple(positions), ((0.0, 1.0),), (None,), None, None, "digest")


def plan(mode: str, patch: Any, tile: Any = None) -> Plan:
    return Plan.model_validate(
        {
            "name": "test",
            "source": "volumes",
            "channels": [{"name": "CT", "intensity": {"kind": "minmax"}}],
            "labels": {"classes": [{"name": "a", "values": [1]}]},
            "spatial": {"patch": patch, "mode": mode, "neighbours": int(mode == "2.5d")},
            "training": {"samples": 16},
            "inference": {"tile": tile},
        }
    )


def labels(shape: tuple[int, ...], *codes: int) -> np.ndarray:
    out = np.zeros(shape, np.uint8)
    for number, code in enumerate(codes):
        out[(number,) * len(shape)] = code
        out[(-1 - number,) * len(shape)] = code
    return out


def test_every_structure_is_among_few_cases(tmp_path: Path) -> None:
    cases = [case(tmp_path / f"c{i}", f"c{i}", labels((4, 4), 1)) for i in range(20)]
    cases.append(case(tmp_path / "rare", "rare", labels((4, 4), 3)))
    cases.append(case(tmp_path / "both", "both", labels((4, 4), 1, 2)))
    chosen = choose_cases(cases, 3)
    assert {"rare", "both"} < {one.id for one in chosen}
    assert [one.id for one in choose_cases(cases, 1)] == ["both"]  # of equally rare ones the first
    assert choose_cases(cases, 99) == cases
    # Neither the order nor another case decides who is chosen.
    assert {one.id for one in choose_cases(cases[::-1], 3)} == {one.id for one in chosen}
    assert {one.id for one in choose_cases(cases[:-3] + cases[-2:], 8)} >= {
        one.id for one in choose_cases(cases, 7) if one.id != cases[-3].id
    }


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(20, 90), st.integers(20, 90)),
    mode=st.sampled_from(["2d", "2.5d", "3d"]),
    tile=st.none() | st.integers(32, 64),
    count=st.integers(1, 40),
    codes=st.lists(st.integers(1, 5), max_size=3, unique=True),
)
def test_pieces_are_different_inside_and_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, mode: str, tile: int | None, count: int, codes: list[int]
) -> None:
    dims = 3 if mode == "3d" else 2
    made = plan(mode, [32] * dims, None if tile is None else [tile] * dims)
    grid = labels(shape, *codes) if shape[0] > 2 * len(codes) else labels(shape)
    one = case(tmp_path_factory.mktemp("case"), "some case", grid)
    pieces = choose_pieces(one, made, count)
    assert pieces == choose_pieces(one, made, count)
    assert len({tuple((s.start, s.stop) for s in piece) for piece in pieces}) == len(pieces) <= max(count, 1)
    for piece in pieces:
        assert all(0 <= part.start < part.stop <= n for part, n in zip(piece, shape, strict=True))
        assert dims == 3 or piece[0].stop == piece[0].start + 1
    covered = np.zeros(shape, bool)
    for piece in pieces:
        covered[piece] = True
    if len(pieces) < count:  # then there are no more
        assert covered.all()


def test_half_of_the_pieces_lie_on_structures_each_of_them_in_turn(tmp_path: Path) -> None:
    grid = np.zeros((64, 96, 96), np.uint8)
    grid[5:15, 10:14, 10:14], grid[40:50, 80:90, 80:90] = 1, 2
    one = case(tmp_path, "case", grid)
    pieces = choose_pieces(one, plan("2d", [32, 32], [32, 32]), 8)
    assert len(pieces) == 8
    for code in (1, 2):
        assert sum(bool((grid[piece] == code).any()) for piece in pieces) >= 2
    assert sum(not grid[piece].any() for piece in pieces) >= 2  # where nothing is, nothing should be found
    assert grid[choose_pieces(one, plan("2d", [32, 32], [32, 32]), 1)[0]].any()


def test_of_an_image_the_whole_is_one_piece(tmp_path: Path) -> None:
    one = case(tmp_path, "image", labels((50, 70), 1))
    assert choose_pieces(one, plan("2d", [32, 32]), 1) == [(slice(0, 50), slice(0, 70))]
    assert choose_pieces(one, plan("2d", [32, 32]), 5) == [(slice(0, 50), slice(0, 70))]


def noisy(array: np.ndarray) -> np.ndarray:
    """Logits of three planes, each pixel for itself."""
    x = array[:, :1]
    return np.concatenate([0.5 - x, np.sin(40 * x), np.cos(30 * x)], axis=1)


@pytest.mark.parametrize("mode", ["2d", "2.5d", "3d"])
def test_all_pieces_score_as_the_whole_does(tmp_path: Path, mode: str) -> None:
    rng, made = np.random.default_rng(0), volumes_plan(mode)
    one = case(tmp_path, "one", rng.integers(0, 3, (32, 64, 96)).astype(np.uint8))
    np.save(tmp_path / "image.npy", rng.random((1, 32, 64, 96), dtype=np.float32))

    def segment(array: np.ndarray) -> np.ndarray:
        return predict_array(noisy, array, made)

    pieces = {"one": choose_pieces(one, made, 10_000)}
    assert len(pieces["one"]) == (6 if mode == "3d" else 32)
    assert validate(segment, [one], made, pieces=pieces) == validate(segment, [one], made)


@given(chosen=st.sets(st.tuples(st.integers(0, 11), st.sampled_from([(0, 0), (0, 16), (16, 0)])), min_size=1))
def test_slices_that_follow_each_other_are_given_together(chosen: set[tuple[int, tuple[int, int]]]) -> None:
    pieces = [(slice(at, at + 1), slice(y, y + 16), slice(x, x + 16)) for at, (y, x) in sorted(chosen)]
    grid, runs = np.zeros((12, 32, 32), int), joined(pieces, plan("2d", [32, 32], [32, 32]))
    for piece in pieces:
        grid[piece] += 1
    for run in runs:
        grid[run] -= 1
    assert not grid.any()
    assert len(runs) == sum((at - 1, corner) not in chosen for at, corner in chosen)
    assert (
        joined(pieces, plan("3d", [32, 32, 32], [32, 32, 32])) == pieces
    )  # tiles, which the network is given one by one


def test_a_slice_is_seen_with_its_neighbours(tmp_path: Path) -> None:
    made, seen = volumes_plan("2.5d"), []
    one = case(tmp_path, "one", np.zeros((9, 32, 32), np.uint8))
    depth = np.arange(9, dtype=np.float32)[:, None, None]
    np.save(tmp_path / "image.npy", np.broadcast_to(depth, (1, 9, 32, 32)).copy())

    def network(stacks: np.ndarray) -> np.ndarray:
        seen.extend(stack[:, 0, 0].tolist() for stack in stacks)
        return np.zeros((len(stacks), 3, *stacks.shape[2:]), dtype=np.float32)

    for at, expected in ((0, [0, 0, 1]), (4, [3, 4, 5]), (8, [7, 8, 8])):
        seen.clear()
        piece = (slice(at, at + 1), slice(0, 32), slice(0, 32))
        validate(lambda array: predict_array(network, array, made), [one], made, pieces={"one": [piece]})
        assert expected in seen


def test_a_few_pieces_of_several_cases_meet_every_class(tmp_path: Path) -> None:
    """Not the first classes alone, in every case."""
    rng, met = np.random.default_rng(0), set()
    for number in range(8):
        grid = np.zeros((40, 96, 96), np.uint8)
        for code in range(1, 9):
            z, y, x = (int(n) for n in rng.integers(0, (38, 94, 94)))
            grid[z : z + 2, y : y + 2, x : x + 2] = code
        one = case(tmp_path / f"c{number}", f"c{number}", grid)
        met |= {int(code) for piece in choose_pieces(one, volumes_plan("3d"), 4) for code in np.unique(grid[piece])}
    assert met == set(range(9))
