"""Targets as URLs: what each part becomes, and what is said of a wrong one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.core.identity import NAME, Kind
from kabench.core.target_url import LONGEST_NAME, TargetUrl, masked, names_of, parse_url
from kabench.errors import SpecError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("redis://127.0.0.1", TargetUrl("redis", "127.0.0.1", 6379)),
        ("redis://127.0.0.1:6380/3", TargetUrl("redis", "127.0.0.1", 6380, database=3)),
        ("REDIS://Cache.example/", TargetUrl("redis", "Cache.example", 6379)),
        ("rediss://h:1", TargetUrl("rediss", "h", 1)),
        ("redis://:p%40ss@h", TargetUrl("redis", "h", 6379, None, "p@ss")),
        ("redis://u%3A:p:w@h/1", TargetUrl("redis", "h", 6379, "u:", "p:w", 1)),
        ("redis://u:p@w@h", TargetUrl("redis", "h", 6379, "u", "p@w")),
        ("redis://[::1]:7000", TargetUrl("redis", "::1", 7000)),
        ("http://h", TargetUrl("http", "h", 80, path="/")),
        ("https://h", TargetUrl("https", "h", 443, path="/")),
        ("http://h:8080/a/b?c=d&e=@f", TargetUrl("http", "h", 8080, path="/a/b?c=d&e=@f")),
        ("http://h?c=d", TargetUrl("http", "h", 80, path="/?c=d")),
        ("https://[fe80::1]/x", TargetUrl("https", "fe80::1", 443, path="/x")),
        (
            "http://my_service.ns.svc.cluster.local.",
            TargetUrl("http", "my_service.ns.svc.cluster.local.", 80, path="/"),
        ),
    ],
)
def test_a_url_becomes_its_parts(text: str, wanted: TargetUrl) -> None:
    found = parse_url(text)
    assert found == wanted
    assert (found.user, found.password) == (wanted.user, wanted.password)


def test_what_a_scheme_says() -> None:
    urls = [parse_url(f"{scheme}://h") for scheme in ("redis", "rediss", "http", "https")]
    assert [(url.kind, url.tls) for url in urls] == [
        (Kind.REDIS, False),
        (Kind.REDIS, True),
        (Kind.HTTP, False),
        (Kind.HTTP, True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("localhost:6379", "not a URL; give redis://HOST[:PORT][/DB]"),
        ("", "not a URL"),
        ("tcp://h:1", "the scheme 'tcp' is not known; give redis://"),
        ("redis://", "no host; give one"),
        ("http:///path", "no host; give one"),
        ("http://:80/", "no host; give one"),
        ("redis://h:", "the port is ''; give a number from 1 to 65535"),
        ("redis://h:0", "the port is '0'"),
        ("redis://h:65536", "the port is '65536'"),
        ("redis://h:+1", "the port is '+1'"),
        ("redis://h:٣", "the port is '٣'"),
        ("http://::1/", "an IPv6 address stands in brackets"),
        ("http://[::1/", "an IPv6 address stands in brackets"),
        ("http://[::1]8080/", "an IPv6 address stands in brackets"),
        ("http://[::g]/", "'::g' is no IPv6 address"),
        ("http://1.2.3.400/", "'1.2.3.400' is no IPv4 address"),
        ("http://a b/", "'a b' is no host"),
        ("http://-a/", "'-a' is no host"),
        ("http://a..b/", "'a..b' is no host"),
        ("http://h/a b", "percent-encoded"),
        ("http://h/ä", "percent-encoded"),
        ("http://h/\n", "percent-encoded"),
        ("http://h/#top", "never sees what stands after #"),
        ("redis://h/x", "'/x' is no database; give a number"),
        ("redis://h/1/2", "'/1/2' is no database"),
        ("redis://h/-1", "'/-1' is no database"),
        ("redis://h?db=1", "'?db=1' is no database"),
        ("redis://h/99999999", "'/99999999' is no database"),
    ],
)
def test_a_wrong_url_is_refused_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_url(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "redis://:s3cret@h:99999",
        "redis://s3cret@h",
        "redis://u:s3cret/@h:6379",
        "redis://u:a@s3cret@h/x",
        "http://u:s3cret@h/",
        "u:s3cret@h:6379",
        "tcp://u:s3cret@h",
        "redis://u:s3cret#@h",
        "redis://:s3cret@",
    ],
)
def test_no_message_shows_a_password(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_url(text)
    assert "s3cret" not in str(caught.value)
    assert "***@" in str(caught.value)


def test_a_url_that_is_shown_has_no_password() -> None:
    url = parse_url("redis://u:s3cret@[::1]:6380/2")
    assert str(url) == "redis://[::1]:6380/2"
    assert "s3cret" not in repr(url)
    assert str(parse_url("https://h/a?b=@c")) == "https://h:443/a?b=@c"
    assert masked("http://h/a?b=@c") == "http://h/a?b=@c"


def test_names_are_labels_and_all_different() -> None:
    urls = [
        "redis://127.0.0.1:6379",
        "redis://127.0.0.1:6379/1",
        "http://[::1]:8080/",
        "http://a-very-long-service-name.in-a-namespace.svc.cluster.local:8080/",
        "http://a-very-long-service-name.in-a-namespace.svc.cluster.example:8080/",
    ]
    assert names_of(map(parse_url, urls)) == [
        "redis-127-0-0-1-6379",
        "redis-127-0-0-1-6379-2",
        "http-1-8080",
        "http-a-very-long-service-name-in-a-8080",
        "http-a-very-long-service-name-in-8080-2",
    ]


@given(
    st.lists(
        st.from_regex(r"(redis|http)://[a-z]{1,60}(\.[a-z]{1,60}){0,2}(:[1-9][0-9]{0,3})?", fullmatch=True),
        max_size=12,
    )
)
def test_any_urls_names_fit(texts: list[str]) -> None:
    names = names_of(map(parse_url, texts))
    assert len(set(names)) == len(texts)
    assert all(NAME.fullmatch(name) and len(name) <= LONGEST_NAME for name in names)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for given_text in (text, f"redis://{text}", f"http://{text}"):
        said = ""
        try:
            parse_url(given_text)
        except SpecError as error:
            said = str(error)
        assert "\n" not in said
