"""Which URIs may be loaded, and that none of them tells a secret."""

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.sources.remotes import AllowedRemotes, check_prefix, is_remote, shown


def reason(uri, *prefixes):
    try:
        AllowedRemotes(prefixes).check(uri)
    except ModelhostError as error:
        return "it told a secret" if "secret" in error.message else error.reason
    return None


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://models/team/a", "s3://models"),
        ("s3://models/team/a", "s3://models/team/"),
        ("s3://models/team", "s3://models/team"),
        ("https://models.example/a.zip?x=1", "https://models.example"),
        ("https://MODELS.example:443/a.zip", "https://models.example/"),
        ("http://[::1]:8080/a/b.zip", "http://[::1]:8080/a"),
    ],
)
def test_below_a_prefix(uri, prefix):
    assert reason(uri, "gs://other", prefix) is None


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://models-of-others/a", "s3://models"),
        ("s3://models/team-b/a", "s3://models/team"),
        ("gs://models/team", "s3://models"),
        ("https://models.example.evil/a.zip", "https://models.example"),
        ("https://models.example:8443/a.zip", "https://models.example"),
        ("http://models.example/a.zip", "https://models.example"),
        ("https://models.example/b/a.zip", "https://models.example/a"),
        ("s3://models/a", "none"),
    ],
)
def test_outside_of_it(uri, prefix):
    assert reason(uri, prefix) is Reason.SOURCE_FORBIDDEN


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:secret@models.example/a.zip", "https://models.example@evil.example/a.zip", "https:///a.zip",
        "s3://models/team/../other", "https://models.example/a/%2e%2e/b.zip", "s3://models/./a", "https://a b/c.zip",
        "https://a/\nb.zip", "https://a/\\b.zip", "http://a:b/c.zip", "http://[::1/c.zip", f"s3://{'x' * 5000}",
    ],
)  # fmt: skip
def test_uris_that_are_none(uri):
    assert reason(uri, "https://models.example", "s3://models/team") is Reason.INVALID_REQUEST
    assert reason(uri) is Reason.INVALID_REQUEST


def test_what_is_told_of_a_uri_has_no_signature():
    assert shown("https://models.example/a.zip?signature=secret#part") == "'https://models.example/a.zip'"


def test_kinds_of_sources():
    assert all(map(is_remote, ("s3://a/b", "gs://a/b", "http://a/b", "https://a/b", "HTTPS://a/b")))
    assert not any(map(is_remote, ("/a/b", "file:///a", "upload:0", "ftp://a/b", "s3", "s3:/a", "")))


def test_prefixes_that_may_be_given():
    assert [check_prefix(prefix) for prefix in ("none", "s3://models", "https://a/b")]
    for wrong in ("models", "/models", "ftp://models", "s3://", ""):
        with pytest.raises(ValueError, match="expected the beginning of a URI"):
            check_prefix(wrong)
