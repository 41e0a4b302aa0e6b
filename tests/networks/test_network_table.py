"""docs/networks.md says what the networks are now."""

import pytest

from r2seg.networks import NETWORKS
from r2seg.networks.legacy import ORIGINS


@pytest.mark.slow
def test_the_page_holds_the_table_of_today(network_table):
    printed, today = network_table.from_markdown(network_table.PAGE.read_text("utf-8")), network_table.rows()
    assert {row["network"] for row in today} >= set(NETWORKS)
    remedy = "run python benchmarks/network_table.py"
    assert [row["network"] for row in printed] == [row["network"] for row in today], remedy
    for was, now in zip(printed, today, strict=True):
        # What a backward pass holds differs a little between versions of torch; the rest is exact.
        held, holds = float(was.pop("activations [MiB]")), float(now.pop("activations [MiB]"))
        assert held == pytest.approx(holds, rel=0.05), remedy
        assert was == now, remedy


def test_the_page_names_every_origin_and_every_origin_has_its_network(network_table):
    page = network_table.PAGE.read_text("utf-8")
    loads = " ".join(words[1] for words in network_table.WORDS.values())
    for origin in ORIGINS:
        assert f"| `{origin}` |" in page
        assert origin in loads
