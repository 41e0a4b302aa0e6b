"""Splits: groups stay whole, shares and lists hold, and the same data and seed give the same split anywhere."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from r2seg.config import Split
from r2seg.data.cases import Case
from r2seg.data.splits import PARTS, draw_folds, draw_split, split_cases
from r2seg.data.stratification import stratify
from r2seg.errors import UserError


def make_cases(groups: dict[str, int] | int, split: dict[str, str] | None = None) -> list[Case]:
    groups = {f"p{index:02}": 1 for index in range(groups)} if isinstance(groups, int) else groups
    ids = [(f"{name}_{index}", name) for name, count in groups.items() for index in range(count)]
    return [Case(case_id, (Path(case_id),), group=name, split=(split or {}).get(case_id)) for case_id, name in ids]


def ids(parts: dict[str, list[Case]]) -> dict[str, list[str]]:
    return {part: [case.id for case in members] for part, members in parts.items()}


def message_of(cases: list[Case], **split) -> str:
    with pytest.raises(UserError) as caught:
        split_cases(cases, Split(**split), 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shares_are_of_the_groups() -> None:
    parts = split_cases(make_cases(20), Split(validation=0.25, test=0.1), seed=0)
    assert {part: len(members) for part, members in parts.items()} == {"train": 13, "validation": 5, "test": 2}


def test_a_share_above_zero_takes_at_least_one_group() -> None:
    parts = split_cases(make_cases(4), Split(validation=0.01, test=0.01), seed=0)
    assert {part: len(members) for part, members in parts.items()} == {"train": 2, "validation": 1, "test": 1}


def test_a_split_is_known() -> None:
    """Pinned: another split of the same data would make old and new runs incomparable."""
    parts = split_cases(make_cases(8), Split(validation=0.25, test=0.25), seed=0)
    assert ids(parts) == {
        "train": ["p00_0", "p03_0", "p06_0", "p07_0"],
        "validation": ["p02_0", "p05_0"],
        "test": ["p01_0", "p04_0"],
    }


def test_the_split_does_not_depend_on_the_order_of_the_cases() -> None:
    cases = make_cases({f"p{index}": 1 + index % 3 for index in range(9)})
    shuffled = random.Random(1).sample(cases, len(cases))
    first, second = (split_cases(each, Split(validation=0.3, test=0.2), seed=4) for each in (cases, shuffled))
    assert {part: sorted(members) for part, members in ids(first).items()} == {
        part: sorted(members) for part, members in ids(second).items()
    }


def test_another_seed_gives_another_split() -> None:
    cases = make_cases(12)
    assert len({tuple(ids(split_cases(cases, Split(validation=0.3), seed))["validation"]) for seed in range(10)}) > 5


def test_groups_are_never_divided_and_every_case_is_somewhere() -> None:
    rng = random.Random(0)
    for _ in range(200):
        cases = make_cases({f"p{index}": rng.randint(1, 4) for index in range(rng.randint(3, 15))})
        parts = split_cases(
            cases, Split(validation=rng.uniform(0, 0.49), test=rng.uniform(0, 0.49)), rng.randint(0, 99)
        )
        assert sorted(case.id for part in PARTS for case in parts[part]) == sorted(case.id for case in cases)
        groups = [{case.group for case in parts[part]} for part in PARTS]
        assert sum(map(len, groups)) == len(set.union(*groups))


def test_cases_are_split_one_by_one_where_the_config_says_so() -> None:
    parts = split_cases(make_cases({"p": 10}), Split(validation=0.2, by="case"), seed=0)
    assert (len(parts["train"]), len(parts["validation"])) == (8, 2)


def test_lists_name_cases_or_groups_and_the_rest_trains() -> None:
    cases = make_cases({"a": 2, "b": 2, "c": 1, "d": 1})
    parts = split_cases(cases, Split(validation=("a", "c_0"), test=("b",)), seed=0)
    assert ids(parts) == {"train": ["d_0"], "validation": ["a_0", "a_1", "c_0"], "test": ["b_0", "b_1"]}


def test_shares_beside_lists_are_drawn_from_what_is_left() -> None:
    parts = split_cases(make_cases(10), Split(validation=0.2, test=("p00", "p01")), seed=0)
    assert (len(parts["validation"]), len(parts["train"])) == (2, 6)
    assert not {"p00", "p01"} & {case.group for case in parts["validation"]}


def test_a_list_of_training_cases_leaves_others_out() -> None:
    parts = split_cases(make_cases(6), Split(train=("p00",), validation=("p01",)), seed=0)
    assert ids(parts) == {"train": ["p00_0"], "validation": ["p01_0"], "test": []}


def test_cases_that_no_part_takes_are_told_by_name() -> None:
    drawn = draw_split(make_cases(30), Split(train=("p00",), validation=("p01",)), 0)
    names = ", ".join(f"p{index:02}_0" for index in range(2, 22))
    assert drawn.warnings == [f"28 cases are in no part of the split: {names} and 8 more"]
    drawn = draw_split(make_cases(3), Split(train=("p00",), validation=("p01",)), 0)
    assert drawn.warnings == ["1 case is in no part of the split: p02_0"]


def test_a_split_of_the_layout_holds() -> None:
    cases = make_cases(6, split={"p00_0": "test", "p01_0": "train"})
    for seed in range(10):  # the cases that have no part are drawn first
        parts = ids(split_cases(cases, Split(validation=0.2), seed))
        assert parts["test"] == ["p00_0"]
        assert "p01_0" in parts["train"]
    for part in ("train", "validation"):
        assert message_of(cases, **{"validation": ("p02",), part: ("p00",)}) == (
            f"data.split.{part} names the case 'p00_0', which the data set itself holds out for test: name others"
        )


def official(train: int, test: int, validation: int = 0) -> list[Case]:
    """A data set with parts of its own: groups t…, v… and x… of two cases each."""
    counts = {"t": train, "v": validation, "x": test}
    cases = make_cases({f"{name}{index:02}": 2 for name, count in counts.items() for index in range(count)})
    parts = {"t": "train", "v": "validation", "x": "test"}
    return [replace(case, split=parts[case.id[0]]) for case in cases]


def test_validation_that_a_data_set_lacks_is_drawn_from_its_training_cases_and_never_from_its_test_cases() -> None:
    """DRIVE: 20 images to train on and 20 to test on. A share is of those that may be drawn: 4 of 20."""
    for seed in range(20):
        drawn = draw_split(official(train=20, test=20), Split(), seed)
        parts = {part: {case.group for case in members} for part, members in drawn.parts.items()}
        assert parts["test"] == {f"x{index:02}" for index in range(20)}
        assert len(parts["validation"]) == 4
        assert {name[0] for name in parts["validation"] | parts["train"]} == {"t"}
        assert drawn.warnings == []


def test_a_test_part_that_a_data_set_lacks_is_drawn_from_its_training_cases() -> None:
    parts = ids(split_cases(official(train=8, test=0, validation=2), Split(test=0.2), 0))
    assert {name[0] for name in parts["test"]} == {"t"}
    assert {part: len(members) for part, members in parts.items()} == {"train": 12, "validation": 4, "test": 4}


def test_the_parts_that_a_data_set_has_hold_whatever_the_shares() -> None:
    cases = official(train=4, test=2, validation=2)
    drawn = draw_split(cases, Split(validation=0.4, test=0.4), 0)
    assert {part: len(members) for part, members in drawn.parts.items()} == {"train": 8, "validation": 4, "test": 4}
    assert drawn.warnings == [
        "data.split.test is 0.4, and the data set has test cases of its own: those are used, and none are drawn"
    ]


def test_validation_cases_may_be_named_among_the_training_cases_of_a_data_set() -> None:
    parts = ids(split_cases(official(train=3, test=1), Split(validation=("t01",)), 0))
    assert parts == {
        "train": ["t00_0", "t00_1", "t02_0", "t02_1"],
        "validation": ["t01_0", "t01_1"],
        "test": ["x00_0", "x00_1"],
    }


def test_a_list_of_training_cases_holds_in_a_data_set_with_parts_too() -> None:
    drawn = draw_split(official(train=4, test=1), Split(train=("t00",), validation=("t01",)), 0)
    assert ids(drawn.parts)["train"] == ["t00_0", "t00_1"]
    assert drawn.left_out == ["t02_0", "t02_1", "t03_0", "t03_1"]


def test_the_only_training_group_of_a_data_set_is_not_drawn_for_validation() -> None:
    message = message_of(official(train=1, test=3), validation=0.2)
    assert message.startswith("data.split leaves no case for train: 8 cases in 4 groups")


def test_a_case_on_two_sides_is_refused() -> None:
    cases = make_cases({"a": 1, "b": 2, "c": 1})
    assert (
        message_of(cases, validation=("b",), test=("b_1",))
        == "data.split puts the case 'b_1' into both validation and test"
    )


def test_a_group_on_two_sides_is_refused_unless_cases_are_split() -> None:
    cases = make_cases({"a": 1, "b": 2, "c": 1})
    message = message_of(cases, validation=("b_0",), test=("b_1",))
    assert message.startswith("data.split puts the group 'b' into both validation and test: a patient in two parts")
    # The rest of the group is not silently trained on either.
    assert "puts the group 'b' into both train and validation" in message_of(cases, validation=("b_0",))
    parts = split_cases(cases, Split(validation=("b_0",), by="case"), seed=0)
    assert ids(parts)["train"] == ["a_0", "b_1", "c_0"]


def test_an_unknown_name_is_reported_with_names_that_are_there() -> None:
    assert message_of(make_cases(8), test=("p99",)) == (
        "data.split.test names 'p99', which is neither a case nor a group; "
        "there are p00_0, p01_0, p02_0, p03_0, p04_0 and 3 more"
    )


@pytest.mark.parametrize(
    ("num_groups", "split", "part"),
    [
        (1, {"validation": 0.2}, "train"),
        (2, {"validation": 0.2, "test": 0.2}, "train"),
        (3, {"validation": ()}, "validation"),
    ],
)
def test_too_few_groups_are_reported(num_groups: int, split: dict, part: str) -> None:
    message = message_of(make_cases({f"p{index}": 3 for index in range(num_groups)}), **split)
    groups = f"{num_groups} group{'s' * (num_groups > 1)}"
    assert message.startswith(f"data.split leaves no case for {part}: {3 * num_groups} cases in {groups}")


def test_no_validation_trains_on_all_that_is_not_held_out() -> None:
    parts = split_cases(make_cases(5), Split(validation=0, test=("p01",)), seed=0)
    assert {part: len(members) for part, members in parts.items()} == {"train": 4, "validation": 0, "test": 1}


# folds


def test_every_case_validates_in_exactly_one_fold_and_no_group_is_divided() -> None:
    rng = random.Random(0)
    for _ in range(60):
        cases = make_cases({f"p{index}": rng.randint(1, 4) for index in range(rng.randint(4, 25))})
        presence = {case.id: {name for name in "abc" if rng.random() < 0.3} for case in cases}
        groups = len({case.group for case in cases})
        test = rng.choice([0.0, 0.2, ("p0",)]) if groups > 6 else 0.0
        split = Split(folds=rng.randint(2, min(groups, 5)), test=test, stratify=rng.random() < 0.5)
        folds = list(draw_folds(cases, split, rng.randint(0, 99), presence))
        assert [fold.fold for fold in folds] == list(range(split.folds))
        held = {case.id for case in folds[0].parts["test"]}
        validated = [case.id for fold in folds for case in fold.parts["validation"]]
        assert sorted([*validated, *held]) == sorted(case.id for case in cases)
        for fold in folds:
            assert {case.id for case in fold.parts["test"]} == held
            parts = [{case.group for case in fold.parts[part]} for part in PARTS]
            assert sum(map(len, parts)) == len(set.union(*parts)) == groups
        sizes = [fold.num_groups["validation"] for fold in folds]
        assert max(sizes) - min(sizes) <= 1


def test_folds_are_known() -> None:
    """Fold k takes every third of the shuffled groups, from the k-th on."""
    order = [f"p{index:02}" for index in range(8)]
    random.Random(0).shuffle(order)
    folds = list(draw_folds(make_cases(8), Split(folds=3), 0))
    assert [sorted(case.group for case in fold.parts["validation"]) for fold in folds] == [
        sorted(order[0::3]),
        sorted(order[1::3]),
        sorted(order[2::3]),
    ]
    assert (
        str(folds[1])
        == "fold 1 of 3 (counted from 0): 5 train cases in 5 groups, 3 validation cases in 3 groups, 0 test cases"
    )


def test_a_fold_drawn_alone_is_that_of_all_folds() -> None:
    cases = make_cases(11)
    for fold, drawn in enumerate(draw_folds(cases, Split(folds=4, fold=2, test=0.1), 7)):
        assert draw_split(cases, Split(folds=4, fold=fold, test=0.1), 7).parts == drawn.parts
    assert draw_split(cases, Split(folds=4), 7).parts == draw_split(cases, Split(folds=4, fold=0), 7).parts


def test_folds_do_not_depend_on_the_order_of_the_cases() -> None:
    cases = make_cases({f"p{index}": 1 + index % 3 for index in range(9)})
    presence = {case.id: {"a"} if case.group in ("p1", "p4") else {"b"} for case in cases}
    shuffled = random.Random(1).sample(cases, len(cases))
    for split in (Split(folds=4, fold=1), Split(folds=4, fold=1, stratify=True), Split(folds="leave_one_out", fold=3)):
        first, second = (split_cases(each, split, 4, presence=presence) for each in (cases, shuffled))
        assert sorted(ids(first)["validation"]) == sorted(ids(second)["validation"])


def test_leave_one_out_validates_one_group_per_fold_in_the_order_of_their_names() -> None:
    cases = make_cases({"b": 2, "a": 1, "c": 3})
    folds = list(draw_folds(cases, Split.model_validate("leave_one_out"), 0))
    assert [ids(fold.parts)["validation"] for fold in folds] == [["a_0"], ["b_0", "b_1"], ["c_0", "c_1", "c_2"]]
    assert message_of(cases, folds="leave_one_out", fold=3) == (
        "data.split.fold is 3, and there are 3 groups, a fold of each, counted from 0: give 0 to 2"
    )


def test_folds_leave_the_test_cases_of_a_data_set_alone() -> None:
    folds = list(draw_folds(official(train=4, test=3, validation=2), Split(folds=3), 0))
    for fold in folds:
        assert {case.group[0] for case in fold.parts["test"]} == {"x"}
        assert "x" not in {case.group[0] for part in ("train", "validation") for case in fold.parts[part]}
    assert sorted({case.group for fold in folds for case in fold.parts["validation"]}) == [
        "t00", "t01", "t02", "t03", "v00", "v01"
    ]  # fmt: skip


def test_more_folds_than_groups_are_refused() -> None:
    cases = make_cases({"a": 5, "b": 5, "c": 5})
    assert message_of(cases, folds=5) == ("data.split.folds is 5, and 3 groups can validate: give at most 3")
    assert message_of(cases, folds=3, test=("a",)) == (
        "data.split.folds is 3, and 2 groups can validate: give at most 2"
    )
    assert message_of(make_cases(1), folds="leave_one_out") == (
        "data.split.folds is leave_one_out, and 1 group can validate: two are needed at least"
    )


# stratified


def test_stratified_groups_equal_those_dealt_by_hand() -> None:
    """Two subsets of three groups; rare occurs in 2 of 6, common in 4.

    rare first (2 holders, each subset wants 1): a -> 0 (tie), c -> 1 (wants 1, the other 0). Then common, of whose holders a, b, d, e
    a is dealt, so that subset 0 wants 1 and subset 1 wants 2: b -> 1; now both want 1, and subset 0 has more room: d -> 0;
    e: subset 1 wants 1, subset 0 wants 0 -> 1, which is then full. f has no label -> 0.
    """
    labels = {"a": {"rare", "common"}, "b": {"common"}, "c": {"rare"}, "d": {"common"}, "e": {"common"}, "f": set()}
    assert stratify("abcdef", labels, [3, 3]) == [["a", "d", "f"], ["c", "b", "e"]]


def test_stratified_folds_spread_a_rare_label_that_chance_does_not() -> None:
    cases = make_cases({f"p{index:02}": 2 for index in range(20)})
    rare = {f"p{index:02}" for index in (0, 1, 2, 3, 4)}
    presence = {case.id: {"lung", "lesion"} if case.group in rare else {"lung"} for case in cases}

    def holders(**changes) -> list[int]:
        folds = draw_folds(cases, Split(folds=5, **changes), 0, presence)
        return [len({case.group for case in fold.parts["validation"]} & rare) for fold in folds]

    assert holders(stratify=True) == [1, 1, 1, 1, 1]
    assert holders() != [1, 1, 1, 1, 1]


def test_stratified_shares_have_the_labels_in_proportion() -> None:
    cases = make_cases(20)
    presence = {case.id: {"lesion"} if index < 10 else set() for index, case in enumerate(cases)}
    for seed in range(10):
        parts = split_cases(cases, Split(validation=0.2, test=0.2, stratify=True), seed, presence=presence)
        with_lesion = {part: sum(bool(presence[case.id]) for case in members) for part, members in parts.items()}
        assert with_lesion == {"train": 6, "validation": 2, "test": 2}
        assert {part: len(members) for part, members in parts.items()} == {"train": 12, "validation": 4, "test": 4}


def test_a_label_in_every_case_changes_no_sizes() -> None:
    cases = make_cases(10)
    parts = split_cases(cases, Split(validation=0.3, stratify=True), 0, presence={case.id: {"lung"} for case in cases})
    assert (len(parts["train"]), len(parts["validation"])) == (7, 3)
