"""Merging is associative, commutative and idempotent; its figures are those of the logs, to the last count."""

import io
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kabench.core.identity import Cell, Kind, Metric, Outcomes
from kabench.core.logline import MERGED_MARK
from kabench.core.merge import Corrupt, Merge, Totals, parts_of_cells, summary
from kabench.core.merged_log import key_of, read_merged, tag_of, write_merged
from kabench.core.result import CellRecord
from kabench.core.totals import read_totals
from kabench.errors import LogError, SpecError


def window(forge, void=False, judged=True, **identity):
    merge = Merge()
    content = forge.log(**identity)
    assert merge.add_window(
        read_totals(io.BytesIO(content)), identity.get("salt", "sha"), judged=judged, void=void
    )
    return merge


def total(*merges):
    whole = Merge()
    for merge in merges:
        whole.add(merge)
    return whole


def again(merge):
    return Merge.of_merged(*read_merged(io.BytesIO(merge.to_bytes())))


@pytest.fixture(scope="module")
def windows(shared_forge):
    """Two agents, two blocks (the second void), two phases."""
    return [
        window(shared_forge, agent=agent, block=block, phase=phase, void=block == 2)
        for agent, block, phase in itertools.product(("node-1", "node-2"), (1, 2), ("a", "b"))
    ]


@settings(max_examples=25)
@given(order=st.permutations(range(8)), cut=st.integers(0, 8))
def test_order_grouping_and_repetition_do_not_matter(windows, order, cut):
    whole = total(*windows)
    shuffled = [windows[index] for index in order]
    left, right = total(*shuffled[:cut]), total(*shuffled[cut:])
    grouped = total(left, right)
    assert not grouped.add(right) or cut == 8
    assert not grouped.add(windows[0])
    assert grouped == whole
    assert grouped.to_bytes() == total(right, left).to_bytes() == whole.to_bytes()
    assert summary(grouped.parts) == summary(whole.parts)


def test_a_window_counts_once(forge, windows):
    whole = total(*windows)
    bytes_before = whole.to_bytes()
    log = read_totals(io.BytesIO(forge.log(agent="node-1", block=1, phase="a")))
    assert not whole.add_window(log, "another", judged=True, void=False)
    assert whole.to_bytes() == bytes_before


def test_adding_leaves_the_addends_alone(windows):
    before = [window.to_bytes() for window in windows]
    total(*windows)
    assert [window.to_bytes() for window in windows] == before


def test_merges_that_share_some_windows_are_refused_and_change_nothing(windows):
    first, second = total(*windows[:3]), total(*windows[2:])
    before = first.to_bytes()
    with pytest.raises(LogError, match="1 of its 6 windows are counted from other files, 5 are not"):
        first.add(second)
    assert first.to_bytes() == before


def test_the_merged_log_is_read_back_whole(windows):
    whole = total(*windows)
    assert again(whole) == whole
    assert again(whole).to_bytes() == whole.to_bytes()
    assert total(again(total(*windows[:4])), again(total(*windows[4:]))) == whole
    assert again(Merge()) == Merge()


def test_tags_are_phase_kind_metric(windows):
    tags = [
        line[4:].split(b",")[0].decode()
        for line in total(*windows).to_bytes().splitlines()
        if line[:4] == b"Tag="
    ]
    assert "a.redis.response" in tags
    assert "void.b.http.lag" in tags
    assert not any("null" in tag for tag in tags)
    assert [tag_of(key_of(tag)) for tag in tags] == tags
    for wrong in ("a.redis", "a.b.redis.lag", "a.mysql.lag", "a.redis.p99"):
        with pytest.raises(LogError, match="not a tag"):
            key_of(wrong)


def test_a_phase_named_void_is_kept_apart_from_what_is_void(forge):
    both = total(window(forge, phase="void"), window(forge, phase="void", block=2, void=True))
    assert again(both) == both
    assert summary(both.parts)["phases"]["void"] != summary(both.parts)["void"]["void"]


def test_a_merged_log_is_whole_or_refused(windows):
    content = total(*windows).to_bytes()
    for cut in range(0, len(content) - 1, 97):
        with pytest.raises(LogError):
            read_merged(io.BytesIO(content[:cut]))
    for old, new, why in (
        (b'"planned":', b'"planned":1', "SHA-256 differs"),
        (b"Tag=a.redis", b"Tag=a.rediss", "not a tag"),
        (b"}\n", b"}\nTag=", "does not read|neither|SHA"),
        (MERGED_MARK, MERGED_MARK + b"{", "does not read"),
    ):
        with pytest.raises(LogError, match=why):
            read_merged(io.BytesIO(content.replace(old, new, 1)))
    with pytest.raises(LogError, match="after the seal"):
        read_merged(io.BytesIO(content + b"#\n"))


def test_a_merged_log_whose_counts_do_not_add_up_is_refused(windows):
    whole = total(*windows)
    part = whole.parts[False, "a", Kind.REDIS]
    for outcomes in (part.outcomes + Outcomes(ok=1), part.outcomes + Outcomes(planned=1, sent=1, ok=1)):
        broken = again(whole)
        broken.parts[False, "a", Kind.REDIS].outcomes = outcomes
        with pytest.raises(LogError, match="reconcile"):
            read_merged(io.BytesIO(broken.to_bytes()))


def test_a_merged_log_that_does_not_fit_its_header_is_refused(windows):
    header, histograms = read_merged(io.BytesIO(total(*windows).to_bytes()))
    replace = msgspec.structs.replace
    member = replace(header.members[0], phase="../x")
    broken = (
        (replace(header, version=2), "version 2"),
        (replace(header, geometry=(1, 2, 3)), "geometry"),
        (replace(header, members=(member, *header.members[1:])), "fits no tag"),
        (replace(header, parts=header.parts[1:]), "not those its header names"),
        (replace(header, parts=(*header.parts, header.parts[0])), "not those its header names"),
    )
    for wrong, why in broken:
        with pytest.raises(LogError, match=why):
            read_merged(io.BytesIO(write_merged(wrong, histograms)))


def test_the_null_echo_is_in_no_sum(forge):
    cell = Cell("a", 1, "node-1", "null-echo", "node-1", "null-echo", Kind.NULL)
    assert parts_of_cells("r", [CellRecord(cell, Outcomes(), {})], [1], 10**9) == {}
    assert {kind for _, _, kind in window(forge).parts} == {Kind.REDIS, Kind.HTTP}


def test_runs_of_different_scenarios_are_refused(forge):
    first = window(forge)
    forge.run, forge.scenario = "20261125T000000Z-00cd", "6" * 64
    both = total(first, window(forge))
    with pytest.raises(SpecError, match="20261124T160000Z-00ab and 20261125T000000Z-00cd"):
        both.refuse_mixture()
    first.refuse_mixture()


def test_the_rate_counts_a_window_once_however_many_agents_share_it(forge):
    forge.intervals = 3  # two seconds of window and a drain
    alone = window(forge, agent="node-1")
    pair = total(alone, window(forge, agent="node-2"))
    more = total(pair, window(forge, agent="node-1", block=2))
    key = (False, "default", Kind.REDIS)
    assert alone.parts[key].window_ns == pair.parts[key].window_ns == 2 * 10**9
    assert more.parts[key].window_ns == 4 * 10**9
    assert pair.parts[key].rate_per_s == pair.parts[key].outcomes.ok / 2
    assert Totals().rate_per_s is None


def test_a_kind_that_not_every_window_has_is_rated_over_its_own(forge):
    both = total(window(forge), window(forge, block=2, kinds=(Kind.REDIS,)))
    assert both.parts[False, "default", Kind.REDIS].window_ns == 4 * 10**9
    assert both.parts[False, "default", Kind.HTTP].window_ns == 2 * 10**9
    assert again(both) == both


def test_the_summary_has_the_documented_shape(forge, windows):
    found = summary(total(*windows).parts, [Corrupt("b", "why"), Corrupt("a", "why")], ["z", "y", "z"])
    assert list(found) == ["phases", "void", "corrupt", "unjudged"]
    assert set(found["phases"]) == set(found["void"]) == {"a", "b"}
    figures = found["phases"]["a"]["redis"]
    assert set(found["phases"]["a"]) == {"redis", "http"}
    assert list(figures) == ["requests", "rate_per_s", "response_ns", "service_ns", "lag_ns"]
    assert list(figures["requests"]) == ["planned", "sent", "ok", "error", "timeout", "skipped"]
    for metric in ("response_ns", "service_ns", "lag_ns"):
        assert list(figures[metric]) == ["p50", "p90", "p99", "p99.9", "max"]
    assert found["corrupt"] == [{"path": "a", "reason": "why"}, {"path": "b", "reason": "why"}]
    assert found["unjudged"] == ["y", "z"]
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_quantiles_with_too_few_beyond_them_are_withheld_the_maximum_never(forge):
    forge.requests = 2000
    whole = window(forge, kinds=(Kind.REDIS,))
    part = whole.parts[False, "default", Kind.REDIS]
    response = part.histograms[Metric.RESPONSE]
    assert 1000 < response.total < 10_000
    found = summary(whole.parts)["phases"]["default"]["redis"]["response_ns"]
    assert found == {
        "p50": response.quantile_ns(0.5),
        "p90": response.quantile_ns(0.9),
        "p99": None,
        "p99.9": None,
        "max": response.max_ns,
    }
    nothing = summary({(False, "a", Kind.HTTP): Totals()})["phases"]["a"]["http"]
    assert set(nothing["lag_ns"].values()) == {None}
    assert nothing["rate_per_s"] is None
