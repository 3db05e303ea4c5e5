from __future__ import annotations

import base64
import enum
import json
import secrets
from copy import deepcopy
from typing import Any

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from django_header_sessions.exceptions import SessionTooLarge, SessionUnreadable
from django_header_sessions.fields import (
    AUTH_FIELDS,
    INT64,
    MAX_FIELDS,
    TAG,
    Changes,
    Codec,
    Fields,
    added,
    field_name,
    is_counter,
    size,
)


class Own(JSONSerializer):
    """A project's own serializer. That it is Django's in all but name is not for us to know."""


class Encrypting:
    """Writes the same value differently each time, as whatever encrypts well does."""

    loaded = 0

    def dumps(self, obj: Any) -> bytes:
        nonce = secrets.token_bytes(4)
        return nonce + base64.b85encode(json.dumps(obj).encode())

    def loads(self, data: bytes) -> Any:
        type(self).loaded += 1
        return json.loads(base64.b85decode(data[4:]))


BARE, OWN, ENCRYPTING = Codec(JSONSerializer), Codec(Own), Codec(Encrypting)

all_text = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs, too
like_numbers = st.integers().map(str) | st.from_regex(r"[ +-]?0*[0-9]{1,20}(\.0|e3|_1| )?\Z")
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**63) - 2, -(2**63) + 2)
    | st.integers(2**63 - 2, 2**63 + 2)
    | st.floats(allow_nan=False)
    | all_text
    | like_numbers
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(all_text, inner, max_size=4),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are equal to one another."""
    return repr(one) == repr(other)


# Codec.

unhurried = settings(deadline=None)  # a busy machine may take its time


@pytest.mark.parametrize("codec", [BARE, OWN, ENCRYPTING], ids=["bare", "own", "encrypting"])
@unhurried
@given(value=values)
def test_whatever_json_can_hold_comes_back(codec: Codec, value: Any) -> None:
    assert same(codec.decode("a", codec.encode("a", value)), value)


@unhurried
@example(value=7)
@example(value="seven")
@given(value=values)
def test_what_is_kept_is_digits_for_a_number_the_text_itself_or_tagged(value: Any) -> None:
    raw = BARE.encode("a", value)
    if type(value) is int and value in INT64:
        assert raw == str(value).encode()
        assert is_counter(raw)
    else:
        assert not is_counter(raw)
        if raw[:1] == TAG:
            assert same(json.loads(raw[1:]), value)
        else:
            assert raw.decode() == value


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ("", b""),
        ("f" * 64, b"f" * 64),
        ("é", b"\xc3\xa9"),
        ("ÿ", b"\xc3\xbf"),
        ("\x00", b"\x00"),
        ("1", TAG + b'"1"'),
        ("-1", TAG + b'"-1"'),
        ("0", TAG + b'"0"'),
        ("-0", b"-0"),
        ("01", b"01"),
        ("1.0", b"1.0"),
        ("\u0661", b"\xd9\xa1"),
        ("9223372036854775807", TAG + b'"9223372036854775807"'),
        ("9223372036854775808", b"9223372036854775808"),
        ("\ud800", TAG + rb'"\ud800"'),
        (0, b"0"),
        (-1, b"-1"),
        (10**14, b"100000000000000"),
        (2**63 - 1, b"9223372036854775807"),
        (-(2**63), b"-9223372036854775808"),
        (2**63, TAG + b"9223372036854775808"),
        (-(2**63) - 1, TAG + b"-9223372036854775809"),
        (True, TAG + b"true"),
        (None, TAG + b"null"),
        (1.0, TAG + b"1.0"),
        ([], TAG + b"[]"),
    ],
)
def test_how_values_are_kept(value: Any, raw: bytes) -> None:
    assert BARE.encode("a", value) == raw
    assert same(BARE.decode("a", raw), value)


class Dictionaries:
    """Takes what Django promises a serializer and nothing else: the dictionary of a session."""

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(sorted(obj.items())).encode()

    def loads(self, data: bytes) -> Any:
        return dict(json.loads(data))


@unhurried
@given(value=values)
def test_a_serializer_is_given_a_dictionary_of_the_field(value: Any) -> None:
    codec = Codec(Dictionaries)
    assert same(codec.decode("a", codec.encode("a", value)), value)


def test_what_was_written_for_one_field_is_not_read_as_another() -> None:
    for codec in (OWN, ENCRYPTING):
        with pytest.raises(KeyError):
            codec.decode("is_staff", codec.encode("likes_tea", True))


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


def test_what_json_writes_as_a_number_or_a_text_is_read_as_one() -> None:
    assert BARE.encode("a", Number.ONE) == b"1"
    assert same(BARE.decode("a", BARE.encode("a", Text("a"))), "a")
    assert same(BARE.decode("a", BARE.encode("a", (1, "a"))), [1, "a"])


@unhurried
@given(value=values)
def test_another_serializer_sees_everything(value: Any) -> None:
    for codec in (OWN, ENCRYPTING):
        assert not codec.bare
        assert codec.encode("a", value)[:1] == TAG


@pytest.mark.parametrize("raw", [b"", b"text", b"1"])
def test_what_another_serializer_would_not_have_written_is_not_guessed_at(raw: bytes) -> None:
    with pytest.raises(ValueError, match="serializer"):
        OWN.decode("a", raw)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"a": object()}])
def test_what_json_cannot_hold_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        BARE.encode("a", value)


@pytest.mark.parametrize("codec", [BARE, OWN, ENCRYPTING], ids=["bare", "own", "encrypting"])
@unhurried
@given(value=values)
def test_a_value_that_was_only_read_does_not_differ(codec: Codec, value: Any) -> None:
    raw = codec.encode("a", value)
    assert not codec.differs("a", codec.decode("a", raw), raw)


@pytest.mark.parametrize("codec", [BARE, OWN, ENCRYPTING], ids=["bare", "own", "encrypting"])
@unhurried
@given(value=st.lists(values, max_size=3) | st.dictionaries(all_text, values, max_size=3))
def test_a_value_that_was_changed_in_place_differs(codec: Codec, value: Any) -> None:
    raw = codec.encode("a", value)
    read = codec.decode("a", raw)
    if isinstance(read, list):
        read.append(None)
    else:
        read["new" * (len(read) + 1)] = [len(max(read, key=len, default=""))]
    changed = not same(codec.decode("a", codec.encode("a", read)), codec.decode("a", raw))
    assert codec.differs("a", read, raw) is changed


# Names.


@unhurried
@given(name=st.none() | st.booleans() | st.integers() | st.floats() | all_text)
def test_names_are_coerced_as_json_coerces_them(name: Any) -> None:
    (coerced,) = json.loads(json.dumps({name: 1}))
    assert field_name(name) == coerced


@pytest.mark.parametrize("name", [b"a", (), ("a",), object(), frozenset()])
def test_what_cannot_name_a_field_is_a_type_error(name: object) -> None:
    with pytest.raises(TypeError, match="named by strings"):
        field_name(name)


# Changes.


@unhurried
@given(
    fields=st.dictionaries(st.text(max_size=2), st.binary(max_size=3)),
    clear=st.booleans(),
    changed=st.dictionaries(st.text(max_size=2), st.binary(max_size=3)),
    deleted=st.sets(st.text(max_size=2)),
)
def test_changes_clear_then_set_then_delete(
    fields: dict[str, bytes], clear: bool, changed: dict[str, bytes], deleted: set[str]
) -> None:
    before = dict(fields)
    changes = Changes(clear, changed, deleted)
    after = changes.applied_to(fields)
    assert fields == before
    for name in {*fields, *changed, *deleted}:
        expected = None if clear else before.get(name)
        expected = changed.get(name, expected)
        assert after.get(name) == (None if name in deleted else expected)
    assert set(after) <= {*fields, *changed}
    assert bool(changes) is bool(clear or changed or deleted)


@unhurried
@example(raw=b"text", by=1)
@example(raw=b"9223372036854775807", by=1)
@example(raw=b"7", by=-9)
@given(raw=st.none() | st.binary(max_size=21) | like_numbers.map(str.encode), by=st.integers())
def test_a_counter_is_raised_exactly_or_not_at_all(raw: bytes | None, by: int) -> None:
    if raw is not None and not is_counter(raw):
        with pytest.raises(TypeError, match="'n'"):
            added("n", raw, by)
    elif int(raw or 0) + by not in INT64:
        with pytest.raises(OverflowError, match="'n'"):
            added("n", raw, by)
    else:
        assert added("n", raw, by) == int(raw or 0) + by
        assert Changes(add=("n", by)).applied_to({} if raw is None else {"n": raw}) == {
            "n": b"%d" % (int(raw or 0) + by)
        }


# Fields.


def fields_of(data: dict[str, Any], codec: Codec = BARE, **more: Any) -> Fields:
    return Fields(codec, {name: codec.encode(name, value) for name, value in data.items()}, **more)


def test_a_field_is_decoded_when_it_is_asked_for_and_once() -> None:
    fields = fields_of({"a": [1], "b": [2]}, ENCRYPTING)
    before = Encrypting.loaded
    assert "a" in fields
    assert list(fields) == ["a", "b"]
    assert len(fields) == 2
    assert not fields.changes()
    assert Encrypting.loaded == before
    assert fields["a"] is fields["a"]
    assert Encrypting.loaded == before + 1


def test_what_was_assigned_is_sent_even_if_it_looks_the_same() -> None:
    fields = fields_of({"a": 1, "b": [1]})
    fields["a"], fields["b"] = 1, [1]
    assert fields.changes() == Changes(set={"a": b"1", "b": TAG + b"[1]"}, delete=[])
    fields.begin_sending()
    fields.committed(fields.changes())
    assert not fields.changes()


def test_what_was_read_is_sent_if_it_was_changed_in_place_and_only_then() -> None:
    fields = fields_of({"cart": {"x": 1}, "other": [1], "unread": [1]})
    assert fields["other"] == [1]
    fields["cart"]["x"] = 2
    assert fields.changes() == Changes(set={"cart": TAG + b'{"x":2}'}, delete=[])
    fields.begin_sending()
    fields.committed(fields.changes())
    assert not fields.changes()
    fields["cart"]["x"] = 3
    assert fields.changes().set == {"cart": TAG + b'{"x":3}'}


def test_what_was_assigned_may_be_changed_in_place_after_it_was_sent() -> None:
    fields = fields_of({})
    fields["a"] = []
    fields.begin_sending()
    fields.committed(fields.changes())
    fields["a"].append(1)
    assert fields.changes().set == {"a": TAG + b"[1]"}


def test_what_was_assigned_while_it_was_sent_is_sent_next_even_if_it_looks_the_same() -> None:
    fields = fields_of({"kept": 1, "gone": 1})
    fields["a"], fields["same"], fields["back"] = 1, 1, 1
    del fields["gone"]
    fields.begin_sending()
    changes = fields.changes()
    fields["a"], fields["same"], fields["gone"], fields["new"] = 2, 1, 3, 4
    del fields["back"]
    fields.committed(changes)
    assert dict(fields) == {"kept": 1, "a": 2, "same": 1, "gone": 3, "new": 4}
    assert fields.changes() == Changes(
        set={"a": b"2", "same": b"1", "gone": b"3", "new": b"4"}, delete=["back"]
    )


@pytest.mark.parametrize("touched", AUTH_FIELDS)
def test_what_says_who_is_signed_in_travels_together(touched: str) -> None:
    data = {name: f"{name} of A" for name in AUTH_FIELDS}
    fields = fields_of({**data, "a": 1})
    fields[touched] = "new"
    changes = fields.changes()
    assert changes.set == {
        name: value.encode() for name, value in (data | {touched: "new"}).items()
    }
    fields = fields_of({"a": 1})
    fields[touched] = "new"
    assert fields.changes().set == {touched: b"new"}
    assert set(fields.changes().delete) == set(AUTH_FIELDS) - {touched}
    fields = fields_of({**data, "a": 1})
    del fields[touched]
    assert set(fields.changes().delete) == {touched}
    assert set(fields.changes().set) == set(AUTH_FIELDS) - {touched}


def test_a_counter_that_the_store_raised_is_known_and_not_sent_again() -> None:
    fields = fields_of({"n": 1})
    fields.counted("n", 5)
    fields.counted("m", 1)
    assert dict(fields) == {"n": 5, "m": 1}
    assert not fields.changes()


def test_a_field_that_cannot_be_read_is_named_and_the_others_can_be_read() -> None:
    fields = Fields(BARE, {"a": b"1", "b": TAG + b"{garbage"}, session_id="abc")
    with pytest.raises(SessionUnreadable, match="'b' of session abc"):
        fields["b"]
    assert fields["a"] == 1
    assert not fields.changes()
    fields["b"] = 2
    assert fields.changes().set == {"b": b"2"}


def test_names_are_shown_and_values_are_not() -> None:
    fields = fields_of({"password": "hunter2"})
    assert fields["password"] == "hunter2"
    assert "password" in repr(fields)
    assert "hunter2" not in repr(fields)


def test_what_is_not_there_is_a_key_error() -> None:
    fields = fields_of({"a": 1})
    del fields["a"]
    for missing in ("a", "b"):
        with pytest.raises(KeyError):
            fields[missing]
        with pytest.raises(KeyError):
            del fields[missing]


@unhurried
@given(
    st.dictionaries(all_text, st.binary(max_size=5), max_size=4),
    st.dictionaries(all_text, st.binary(max_size=5), max_size=4),
    st.integers(0, 60),
)
def test_a_session_may_not_grow_beyond_its_limit_and_may_always_shrink(
    before: dict[str, bytes], changed: dict[str, bytes], limit: int
) -> None:
    fields, changes = Fields(BARE, before), Changes(set=changed)
    after = size(changes.applied_to(before))
    fields.check_size(changes, None)
    if after <= max(limit, size(before)):
        fields.check_size(changes, limit)
    else:
        with pytest.raises(SessionTooLarge, match=f"{after} bytes.*{limit}"):
            fields.check_size(changes, limit)


def test_a_session_has_at_most_so_many_fields() -> None:
    full = {f"{n}": b"1" for n in range(MAX_FIELDS)}
    Fields(BARE).check_size(Changes(set=full), None)
    Fields(BARE, full).check_size(Changes(set={"0": b"2"}), None)
    for changes in (Changes(set={"more": b"1"}), Changes(add=("more", 1))):
        with pytest.raises(SessionTooLarge, match="1001 fields"):
            Fields(BARE, full).check_size(changes, None)
    over = full | {"more": b"1"}
    Fields(BARE, over).check_size(Changes(set={"0": b"2"}), None)
    Fields(BARE, over).check_size(Changes(delete=["0"]), None)


json_values = st.integers(-2, 2) | st.text(max_size=2) | st.lists(st.integers(0, 2), max_size=2)
few_names = st.sampled_from(["a", "b", "c", *AUTH_FIELDS[:2]])
few = st.tuples(st.sampled_from(["a", "b", "c"]), json_values) | st.tuples(
    st.sampled_from(AUTH_FIELDS), st.text(max_size=2)
)


class FieldsMachine(RuleBasedStateMachine):
    """Fields against a dict, over a store that somebody else writes to as well."""

    codec = BARE

    def __init__(self) -> None:
        super().__init__()
        self.fields, self.model = Fields(self.codec), dict[str, Any]()

    @initialize(data=st.lists(few).map(lambda fields: {"c": [0], **dict(fields)}))
    def open(self, data: dict[str, Any]) -> None:
        self.store = {name: self.codec.encode(name, value) for name, value in data.items()}
        self.fields = Fields(self.codec, dict(self.store))
        self.model = deepcopy(data)
        self.opened: dict[str, Any] = deepcopy(data)
        """As the store held it when it was asked or told last."""
        self.touched: set[str] = set()

    @rule(name=few_names)
    def read(self, name: str) -> None:
        assert self.fields.get(name, "not there") == self.model.get(name, "not there")

    @rule(item=few)
    def assign(self, item: tuple[str, Any]) -> None:
        name, value = item
        self.fields[name] = deepcopy(value)
        self.model[name] = deepcopy(value)
        self.touched.add(name)

    @rule(name=few_names)
    def delete(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(KeyError):
                del self.fields[name]
            return
        del self.fields[name], self.model[name]
        self.touched.add(name)

    @rule(name=few_names)
    def change_in_place(self, name: str) -> None:
        if isinstance(self.model.get(name), list):
            for data in (self.fields, self.model):
                data[name].append(7)

    @rule(name=few_names)
    def change_back_in_place(self, name: str) -> None:
        if isinstance(self.model.get(name), list) and self.model[name]:
            for data in (self.fields, self.model):
                data[name].pop()

    @rule(name=st.sampled_from(["d", "e"]), value=json_values)
    def somebody_else_writes(self, name: str, value: Any) -> None:
        self.store[name] = self.codec.encode(name, value)

    @rule()
    def commit(self) -> None:
        self.fields.begin_sending()
        changes = self.fields.changes()
        expected = self.touched | {
            name for name, value in self.opened.items() if self.model.get(name, value) != value
        }
        if expected & set(AUTH_FIELDS):
            expected |= set(AUTH_FIELDS)
        assert set(changes.set) == expected & set(self.model)
        assert set(changes.delete) == expected - set(self.model)
        assert not changes.clear
        self.fields.check_size(changes, None)
        theirs = {name: raw for name, raw in self.store.items() if name in "de"}
        self.store = changes.applied_to(self.store)
        self.fields.committed(changes)
        self.opened, self.touched = deepcopy(self.model), set()
        ours = {
            name: self.codec.decode(name, raw)
            for name, raw in self.store.items()
            if name not in "de"
        }
        assert ours == self.model
        assert {name: raw for name, raw in self.store.items() if name in "de"} == theirs

    @invariant()
    def names_agree(self) -> None:
        assert set(self.fields) == set(self.model)
        assert len(self.fields) == len(self.model)
        assert all(name in self.fields for name in self.model)

    def teardown(self) -> None:
        assert dict(self.fields) == self.model
        encoded = self.fields.encoded()
        assert {name: self.codec.decode(name, raw) for name, raw in encoded.items()} == self.model


class EncryptedFieldsMachine(FieldsMachine):
    codec = ENCRYPTING


bounded = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestFields = FieldsMachine.TestCase
TestFields.settings = bounded
TestEncryptedFields = EncryptedFieldsMachine.TestCase
TestEncryptedFields.settings = bounded
