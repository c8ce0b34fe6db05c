"""Splits: groups are never divided, shares are met, stages are spread, and nothing depends on chance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.formats.detect import read_source
from al_loop.formats.records import SourceImage
from al_loop.splits import Group, assign_splits, choose_labelled
from backend.instances import INFECTED


def sizes(groups: list[Group], splits: dict[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for group in groups:
        found[splits[group.name]] += group.images
    return found


@pytest.mark.parametrize(("images", "block"), [(60, 1), (245, 20), (245, 10), (24, 4), (40, 1)])
def test_small_sets_are_split_60_15_25(images: int, block: int) -> None:
    groups = [Group(f"g{k}", min(block, images - k)) for k in range(0, images, block)]
    found = sizes(groups, assign_splits(groups))
    assert sum(found.values()) == images
    slack = block / images + 0.01
    assert found["test"] / images >= 0.20
    assert found["test"] / images == pytest.approx(0.25, abs=slack)
    assert found["validation"] / images == pytest.approx(0.15, abs=slack)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from([None, "train", "validation", "test"])), max_size=20),
    st.integers(0, 5),
)
def test_every_group_has_one_split_and_fixed_ones_keep_theirs(rows: list[tuple[int, str | None]], seed: int) -> None:
    groups = [Group(str(i), n, {"ring": n % 3}, fixed) for i, (n, fixed) in enumerate(rows)]
    splits = assign_splits(groups, seed)
    assert set(splits) == {group.name for group in groups}
    assert set(splits.values()) <= {"train", "validation", "test"}
    assert all(splits[group.name] == group.fixed for group in groups if group.fixed)
    assert splits == assign_splits(list(groups), seed)


def test_a_single_group_is_train_and_two_leave_one_for_train() -> None:
    assert assign_splits([Group("a", 9)]) == {"a": "train"}
    assert sorted(assign_splits([Group("a", 9), Group("b", 9)]).values()) == ["test", "train"]
    assert assign_splits([]) == {}


def test_the_seed_matters_and_the_order_does_not() -> None:
    groups = [Group(f"g{k}", 1) for k in range(60)]
    assert assign_splits(groups, 0) == assign_splits(groups[::-1], 0)
    assert assign_splits(groups, 0) != assign_splits(groups, 1)


def test_a_large_official_test_split_is_left_alone_and_a_tiny_one_is_filled_up() -> None:
    train = [Group(f"t{k}", 1) for k in range(1208)]
    official = assign_splits([*train, *(Group(f"o{k}", 1, fixed="test") for k in range(120))])
    assert Counter(official.values())["test"] == 120
    assert Counter(official.values())["validation"] == pytest.approx(0.1 * 1328, abs=1)
    partial = assign_splits([*train[:59], Group("o", 1, fixed="test")])
    assert Counter(partial.values())["test"] == 15


def test_rare_stages_reach_the_ruler() -> None:
    """Six of sixty images hold the only schizonts; a test split of a quarter should hold one or two of them."""
    for seed in range(5):
        groups = [Group(f"g{k}", 1, {"schizont": 1 if k % 10 == 0 else 0, "ring": k % 4 == 1}) for k in range(60)]
        splits = assign_splits(groups, seed)
        schizonts = Counter(splits[group.name] for group in groups if group.cells["schizont"])
        assert 1 <= schizonts["test"] <= 2
        assert schizonts["train"] >= 3


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_labelled_share_is_met_and_holds_each_stage_in_proportion(share: float) -> None:
    groups = [Group(f"g{k}", 1, {"gametocyte": int(k % 8 == 0)}) for k in range(40)]
    chosen = choose_labelled(groups, share, seed=3)
    assert len(chosen) == round(share * 40)
    assert chosen == choose_labelled(groups, share, seed=3)
    assert sum(group.cells["gametocyte"] for group in groups if group.name in chosen) == pytest.approx(
        5 * share, abs=0.6
    )


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        choose_labelled([], 1.5)


@pytest.mark.realdata
def test_real_iml_is_split_by_whole_blocks_with_every_stage_in_the_ruler(data_root: Path) -> None:
    blocks: dict[str, list[SourceImage]] = {}
    for image in read_source(data_root / "iml"):
        blocks.setdefault(str(image.group), []).append(image)
    groups = [
        Group(name, len(images), Counter(thing.label for image in images for thing in image.objects))
        for name, images in blocks.items()
    ]
    splits = assign_splits(groups)
    found = sizes(groups, splits)
    assert 0.20 <= found["test"] / 245 <= 0.30
    assert 0.10 <= found["validation"] / 245 <= 0.20
    cells: dict[str, Counter[str]] = {"train": Counter(), "validation": Counter(), "test": Counter()}
    for group in groups:
        cells[splits[group.name]].update(group.cells)
    for stage in INFECTED:
        total = sum(cells[split][stage] for split in cells)
        assert 0.1 <= cells["test"][stage] / total <= 0.45, stage


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.frozensets(st.sampled_from("abcdef"), max_size=2),
            st.sampled_from([None, None, None, "train", "validation", "test"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_a_patient_is_in_one_split(rows: list[tuple[int, frozenset[str], str | None, bool]]) -> None:
    """Unless the patient's groups were divided before; then new ones join the one nobody trains on."""
    groups = [
        Group(str(i), n, {}, split if settled else None, None if settled else split, patients)
        for i, (n, patients, split, settled) in enumerate(rows)
    ]
    splits = assign_splits(groups)
    assert all(splits[group.name] == group.fixed for group in groups if group.fixed)
    assert splits == assign_splits(groups[::-1])
    for patient in "abcdef":
        own = [group for group in groups if patient in group.patients]
        assert len({splits[group.name] for group in own if not group.fixed}) <= 1
        if len({group.fixed for group in own if group.fixed}) <= 1 and all(len(g.patients) < 2 for g in groups):
            assert len({splits[group.name] for group in own}) <= 1


def test_people_are_found_through_shared_slides() -> None:
    chain = [Group(name, 1, patients=frozenset(who)) for name, who in (("1", "ab"), ("2", "bc"), ("3", "cd"))]
    alone = [Group(f"x{n}", 1) for n in range(9)]
    splits = assign_splits([*chain, Group("4", 1, fixed="test", patients=frozenset("d")), *alone])
    assert [splits[name] for name in "1234"] == ["test"] * 4
    promised = assign_splits([Group("5", 1, promised="test", patients=frozenset("a")), *chain, *alone])
    assert {promised[name] for name in ("1", "5")} == {"test"}
