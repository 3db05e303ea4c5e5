"""The session key: made, parsed, hashed and masked."""

from __future__ import annotations

import copy
import hashlib
import pickle
import pprint
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_header_sessions import keys


def test_a_key_is_an_id_and_a_secret_of_lower_case_letters_and_digits() -> None:
    key = keys.make()
    assert isinstance(key, keys.SessionKey)
    assert len(key) == keys.KEY_LENGTH == 40
    assert key.id == key[:15]
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789")


def test_no_two_keys_are_alike() -> None:
    assert len({keys.make() for _ in range(2000)}) == 2000


def test_a_new_secret_for_a_session_keeps_its_id() -> None:
    key = keys.make()
    made = {keys.make(key.id) for _ in range(100)}
    assert {other.id for other in made} == {key.id}
    assert len({other[15:] for other in made}) == 100


def test_every_character_is_equally_likely_in_every_place() -> None:
    drawn = 4000
    for place in zip(*(keys.make() for _ in range(drawn)), strict=True):
        counted = Counter(place)
        assert len(counted) == 36
        expected = drawn / 36
        # Chi-squared with 35 degrees of freedom exceeds 110 once in some 10^9 draws.
        deviation = sum((counted[c] - expected) ** 2 / expected for c in keys.ALPHABET)
        assert deviation < 110


def test_bytes_that_would_favour_some_characters_are_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = iter([bytes([252, 253, 254, 255] * 12), bytes([0, 251, 255] * 16)] * 3)
    monkeypatch.setattr("os.urandom", lambda size: next(drawn))
    assert keys.make() == "a9" * 16 + "a9" * 4


@given(st.text())
def test_only_what_has_the_form_of_a_key_is_parsed(text: str) -> None:
    well_formed = len(text) == 40 and set(text) <= set(keys.ALPHABET)
    assert (keys.parse(text) is not None) is well_formed


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "new",
        b"a" * 40,
        ["a"] * 40,
        40,
        "a" * 39,
        "a" * 41,
        "A" + "a" * 39,
        "a" * 40 + "\n",
        "\n" + "a" * 40,
        "a" * 39 + " ",
        "a" * 39 + "é",
        "a" * 39 + "٣",
        "a" * 39 + "²",
        "a" * 39 + "\0",
        "a" * 39 + "-",
    ],
)
def test_what_is_not_a_key_is_none(text: object) -> None:
    assert keys.parse(text) is None


def test_what_is_parsed_is_the_key_itself() -> None:
    key = keys.make()
    assert keys.parse(key) is key
    parsed = keys.parse(str(key))
    assert parsed == key
    assert isinstance(parsed, keys.SessionKey)


def test_the_hash_is_half_the_sha256_of_the_secret_alone() -> None:
    key = keys.SessionKey("i" * 15 + "s" * 25)
    assert key.secret_hash == hashlib.sha256(b"s" * 25).digest()[:16]
    assert keys.SessionKey("x" * 15 + "s" * 25).secret_hash == key.secret_hash


def test_a_key_shows_its_id_alone() -> None:
    key = keys.make()
    for shown in (repr(key), f"{key!r}", str([key]), pprint.pformat({"key": key})):
        assert key.id in shown
        assert key[15:] not in shown
    assert repr(copy.copy(key)) == repr(pickle.loads(pickle.dumps(key))) == repr(key)


def test_a_key_says_all_of_itself_where_it_is_sent() -> None:
    key = keys.make()
    assert type(str(key)) is str
    assert str(key) == key
    assert len(f"{key}") == 40
    assert key.encode("ascii").decode("ascii") == key


@pytest.mark.parametrize("text", ["a" * 15, "0" * 15, "3f9k0a7zq1x8b2m"])
def test_what_has_the_form_of_an_id(text: str) -> None:
    assert keys.is_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "a" * 14, "a" * 16, "A" * 15, "a" * 14 + "\n", "a" * 14 + "é", "*" * 15, None, b"a" * 15],
)
def test_what_has_not_the_form_of_an_id(text: object) -> None:
    assert not keys.is_id(text)
