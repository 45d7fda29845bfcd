"""A user's replies as examples: none is lost for being long, or for answering somebody who was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.config import DatasetConfig
from training.writers.replies import write_replies
from transcripts.transcript import Role, Transcript, Turn

CONFIG = DatasetConfig(max_prompt_characters=60, max_completion_characters=40)


def talk(*texts: str) -> Transcript:
    """Return a conversation that the other speaker begins."""
    roles: tuple[Role, Role] = ("other", "user")
    turns = tuple(Turn(role=roles[index % 2], text=text) for index, text in enumerate(texts))
    return Transcript(turns=turns, source_format="test")


def test_of_a_long_turn_before_a_reply_the_end_is_shown() -> None:
    (example,) = write_replies([talk("word " * 100 + "and what do you say?", "I say no.")], config=CONFIG)
    (asked,) = example.prompt
    assert asked.content.endswith("and what do you say?")
    assert len(asked.content) == 60
    assert example.completion == "I say no."


def test_older_turns_are_shown_whole_or_not_at_all() -> None:
    short = talk("What is up?", "Not much.", "And now?", "More.")
    assert len(write_replies([short], config=CONFIG)[1].prompt) == 3
    long = talk("What is up?" * 9, "Not much.", "And now?", "More.")
    assert [message.content for message in write_replies([long], config=CONFIG)[1].prompt] == ["And now?"]


def test_a_long_reply_is_told_in_parts_that_go_on_from_one_another() -> None:
    text = "I went to the harbour today. It rained a lot! Then I came home and slept."
    first, second, third = write_replies([talk("How was it?", text)], config=CONFIG)
    assert first.completion == "I went to the harbour today."
    assert second.completion.startswith("It rained a lot!")
    assert " ".join((first.completion, second.completion, third.completion)) == text
    assert [message.role for message in third.prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert third.prompt[1].content == first.completion
    assert third.prompt[3].content == second.completion


def test_a_reply_of_a_book_shows_no_book_before_each_of_its_parts() -> None:
    found = write_replies([talk("And then?", "So I went on, and on. " * 5000)], config=CONFIG)
    assert len(found) == 5000
    assert max(len(example.prompt) for example in found) == 5


@given(st.text(min_size=1, max_size=300))
def test_no_word_of_a_reply_is_lost_or_said_twice(text: str) -> None:
    found = write_replies([talk("And?", text)], config=CONFIG)
    assert "".join("".join(example.completion.split()) for example in found) == "".join(text.split())
    assert all(0 < len(example.completion) <= CONFIG.max_completion_characters for example in found)
