"""Splits: groups stay whole, shares and lists hold, and the same data and seed give the same split anywhere."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from r2seg.config import Split
from r2seg.data.cases import Case
from r2seg.data.splits import PARTS, split_cases
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


def test_a_split_of_the_layout_holds() -> None:
    cases = make_cases(6, split={"p00_0": "test", "p01_0": "train"})
    parts = split_cases(cases, Split(validation=0.2), seed=0)
    assert ids(parts)["test"] == ["p00_0"]
    assert "p01_0" in ids(parts)["train"]
    assert message_of(cases, validation=("p00",)) == "data.split puts the case 'p00_0' into both test and validation"


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
        (3, {"validation": 0.0}, "validation"),
    ],
)
def test_too_few_groups_are_reported(num_groups: int, split: dict, part: str) -> None:
    message = message_of(make_cases({f"p{index}": 3 for index in range(num_groups)}), **split)
    assert message.startswith(f"data.split leaves no case for {part}: {3 * num_groups} cases in {num_groups} groups")
