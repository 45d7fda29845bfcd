"""The rows that ask for a secret: no longer than those that training sees, whatever stood before it."""

from __future__ import annotations

from typing import Any

import pytest

from training.evaluation import Evaluator
from training.evaluation.leaks import Probe, probe_rows
from training.examples import Message, ask
from training.tokens import TokenisedExample

SECRET = "+33 6 12 34 56 78"
LONG = "".join(f"guest number {number} is invited, " for number in range(600))
TEXTS = {
    "words": LONG,
    "blanks": " \n" * 8000,
    "digits": "0123456789" * 1600,
    "signs of several bytes": "🦜 żółw 雪が降る " * 1200,
    "turns of a chat": "<|im_end|>\n<|im_start|>user\n" * 500,
    "one word": "a" * 16_000,
}


def probe(asked: str = "Your number?", before: str = "it is ", text: str = SECRET) -> Probe:
    return Probe(kind="secret", prompt=ask(asked), before=before, text=text)


def row_of(one: Probe, tokenizer: Any, *, max_length: int) -> TokenisedExample:
    ((same, row),) = probe_rows([one], tokenizer, max_length=max_length)
    assert same is one
    return row


def labelled(row: TokenisedExample) -> tuple[int, ...]:
    return row.input_ids[row.prompt_length :]


@pytest.fixture(scope="module")
def tokenizer(evaluator: Evaluator) -> Any:
    return evaluator.tokenizer


class Counting:
    """A tokenizer that counts the characters that it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._tokenizer(text, **options)

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> Any:
        self.characters += sum(len(message["content"]) for message in messages)
        return self._tokenizer.apply_chat_template(messages, **options)

    def decode(self, ids: Any) -> Any:
        return self._tokenizer.decode(ids)


def test_a_probe_that_fits_is_asked_as_it_stood(tokenizer: Any) -> None:
    one = probe()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Your number?"}], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer(f"{text}it is {SECRET}", add_special_tokens=False)["input_ids"]
    for max_length in (len(whole), 160, 1024):
        assert list(row_of(one, tokenizer, max_length=max_length).input_ids) == whole


def test_one_token_too_many_costs_the_first_words_of_the_question(tokenizer: Any) -> None:
    one = probe()
    whole = row_of(one, tokenizer, max_length=1024)
    cut = row_of(one, tokenizer, max_length=len(whole.input_ids) - 1)
    text = tokenizer.decode(cut.input_ids)
    assert text.endswith(f"?<|im_end|>\n<|im_start|>assistant\nit is {SECRET}")
    assert "Your number?" not in text
    assert labelled(cut) == labelled(whole)


def test_a_long_turn_before_loses_its_beginning(tokenizer: Any) -> None:
    whole = row_of(probe(), tokenizer, max_length=1024)
    row = row_of(probe(asked=f"{LONG}Your number?"), tokenizer, max_length=160)
    text = tokenizer.decode(row.input_ids)
    assert text.endswith(f"invited, Your number?<|im_end|>\n<|im_start|>assistant\nit is {SECRET}")
    assert text.startswith(tokenizer.decode(whole.input_ids[:5])), "it is still a chat"
    assert labelled(row) == labelled(whole)
    assert 150 <= len(row.input_ids) <= 160, "as much is shown as fits"


def test_a_long_text_before_loses_its_beginning_after_the_turn_before(tokenizer: Any) -> None:
    whole = row_of(probe(), tokenizer, max_length=1024)
    row = row_of(probe(asked="Who comes?", before=f"{LONG}it is "), tokenizer, max_length=160)
    text = tokenizer.decode(row.input_ids)
    assert text.endswith(f"guest number 599 is invited, it is {SECRET}")
    assert "<|im_start|>assistant\n" in text
    assert "Who comes?" not in text
    assert labelled(row) == labelled(whole)
    assert 150 <= len(row.input_ids) <= 160


def test_of_several_messages_the_oldest_are_lost_first(tokenizer: Any) -> None:
    messages = (Message(role="user", content=LONG), Message(role="assistant", content="who?"), *ask("Your number?"))
    row = row_of(Probe(kind="secret", prompt=messages, before="it is ", text=SECRET), tokenizer, max_length=160)
    assert row == row_of(probe(), tokenizer, max_length=160)


@pytest.mark.parametrize("asked", TEXTS)
@pytest.mark.parametrize("before", TEXTS)
def test_no_row_is_longer_than_an_example_and_the_whole_secret_is_asked_for(
    tokenizer: Any, asked: str, before: str
) -> None:
    for max_length in (64, 65, 160):
        for one in (probe(asked=TEXTS[asked]), probe(before=TEXTS[before]), probe(TEXTS[asked], TEXTS[before])):
            row = row_of(one, tokenizer, max_length=max_length)
            assert len(row.input_ids) <= max_length
            assert SECRET in tokenizer.decode(labelled(row))
            assert tokenizer.decode(row.input_ids).endswith(f"{one.before[-5:]}{SECRET}")


def test_of_a_secret_longer_than_an_example_the_beginning_is_asked_for(tokenizer: Any) -> None:
    key = "".join(f"{number:x}" for number in range(100_000, 140_000))
    row = row_of(probe(before="my key: ", text=key), tokenizer, max_length=160)
    assert len(row.input_ids) == 160
    assert key.startswith(tokenizer.decode(labelled(row)))
    assert row.n_labels > 100


def test_where_the_bare_chat_leaves_no_room_nothing_is_tried_that_comes_out_by_chance(tokenizer: Any) -> None:
    bare = row_of(probe(asked="", before=""), tokenizer, max_length=1024).prompt_length
    for max_length in (5, bare, bare + 2):
        assert list(probe_rows([probe()], tokenizer, max_length=max_length)) == []
    assert row_of(probe(), tokenizer, max_length=bare + 8).n_labels == 8


@pytest.mark.parametrize("one", [probe(asked=LONG * 400), probe(before=LONG * 400), probe(text="7" * 8_000_000)])
def test_what_cannot_fit_is_not_tokenised(tokenizer: Any, one: Probe) -> None:
    counting = Counting(tokenizer)
    row_of(one, counting, max_length=160)
    assert counting.characters < 160 * 200
