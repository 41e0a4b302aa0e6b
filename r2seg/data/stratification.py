"""Groups dealt out so that every part gets its share of each label; which parts there are is decided in splits.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def stratify(groups: Sequence[str], labels: Mapping[str, Collection[str]], sizes: Sequence[int]) -> list[list[str]]:
    """The groups of each subset, with the labels spread as evenly as greedy choice can.

    Iterative stratification (Sechidis, Tsoumakas & Vlahavas, ECML PKDD 2011): the label that fewest of the remaining groups hold
    comes first; each of its groups goes to the subset that still needs most of this label, and among equal ones to the subset that
    still needs most groups. Unlike there, a subset with all its groups takes no more, so that sizes are exact, and ties go to the
    first subset: shuffle the groups to make the choice random.

    Args:
        groups: In the order in which they are dealt out.
        labels: Group -> the labels that occur in it.
        sizes: Number of groups of each subset; they add up to all groups.

    Raises:
        ValueError: The sizes do not add up.
    """
    if sum(sizes) != len(groups):
        raise ValueError(f"sizes {list(sizes)} do not add up to {len(groups)} groups")
    subsets: list[list[str]] = [[] for _ in sizes]
    names = sorted({label for group in groups for label in labels[group]})
    holders = {name: [group for group in groups if name in labels[group]] for name in names}
    wanted = {
        name: [len(holders[name]) * size / len(groups) for size in sizes] for name in names
    }  # of each label, by subset
    room = list(sizes)
    remaining = dict.fromkeys(groups)  # a set that keeps its order

    def deal(group: str, need: Sequence[float]) -> None:
        open_subsets = [index for index, free in enumerate(room) if free > 0]
        index = max(open_subsets, key=lambda index: (round(need[index], 9), room[index], -index))
        subsets[index].append(group)
        room[index] -= 1
        for name in labels[group]:
            wanted[name][index] -= 1
        del remaining[group]

    while True:
        left = {name: [group for group in holders[name] if group in remaining] for name in names}
        rarest = min((name for name in names if left[name]), key=lambda name: len(left[name]), default=None)
        if rarest is None:
            break
        for group in left[rarest]:
            deal(group, wanted[rarest])
    for group in list(remaining):  # without any label
        deal(group, room)
    return subsets
