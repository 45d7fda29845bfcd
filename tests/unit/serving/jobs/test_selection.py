import pytest

from kit.errors import InvalidName
from serving.jobs.errors import BatchRequestInvalid
from serving.jobs.selection import Selection, read_lines


def test_nobody_is_in_a_selection_twice_and_the_order_stays() -> None:
    assert Selection.of(users=["b", "a", "b"]).users == ("b", "a")


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        ({}, "users"),
        ({"users": ["a"], "everybody": True}, "users"),
        ({"users": []}, "users"),
        ({"users": ["a"], "only": "old"}, "only"),
        ({"users": ["a"], "max_age_days": 3}, "max_age_days"),
        ({"users": ["a"], "only": "stale", "max_age_days": -1}, "max_age_days"),
        ({"users": ["a"], "only": "stale", "max_age_days": float("nan")}, "max_age_days"),
    ],
)
def test_a_selection_that_means_nothing_is_refused_by_field(choice: dict[str, object], field: str) -> None:
    with pytest.raises(BatchRequestInvalid) as refused:
        Selection.of(**choice)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_a_user_that_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidName, match="users 'a/b'"):
        Selection.of(users=["a/b"])


def test_lines_name_users_bare_quoted_or_as_objects_and_empty_ones_are_passed_over() -> None:
    assert list(read_lines(["ann", "", '"bob"', '  {"user_id": "cy", "more": 1} '])) == ["ann", "bob", "cy"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a/b", "is no name"),
        ('{"user_id": 3}', "has no user_id"),
        ('{"user": "a"}', "has no user_id"),
        ('["a"]', "has no user_id"),
        ('{"user_id": ', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"user_id": ".."}', "is no name"),
    ],
)
def test_a_line_that_names_nobody_is_refused_by_its_number(line: str, why: str) -> None:
    with pytest.raises(BatchRequestInvalid, match=f"line 2 {why}") as refused:
        list(read_lines(["ann", line]))
    assert refused.value.field == "line 2"
    assert len(refused.value.message) < 200
