from __future__ import annotations

from training.config import DatasetConfig
from training.examples import Example, ask
from training.selection import choose_held_out, choose_training


def statement(number: int, *, topic: str, question: str = "What?") -> Example:
    return Example(
        kind="statement", prompt=ask(question), completion=f"I say number {number} about {topic}", transcript_id="t",
        turn_index=number, topic=topic,
    )  # fmt: skip


def reply(text: str, number: int) -> Example:
    return Example(kind="reply", prompt=ask(f"so {number}?"), completion=text, transcript_id="r", turn_index=number)


def test_a_rare_topic_is_asked_for_beside_a_frequent_one() -> None:
    many = [statement(number, topic="interests") for number in range(50)]
    rare = [statement(99, topic="work_and_study")]
    chosen = choose_training(many + rare, [], config=DatasetConfig(max_examples=10, statement_share=1.0))
    assert rare[0] in chosen
    assert len(chosen) == 10


def test_a_chosen_sentence_comes_with_all_its_questions() -> None:
    questions = ["What?", "What do you say?", "Tell me."]
    pool = [statement(n, topic="interests", question=question) for n in range(20) for question in questions]
    chosen = choose_training(pool, [], config=DatasetConfig(max_examples=9, statement_share=1.0))
    assert len({example.completion for example in chosen}) == 3


def test_replies_and_statements_fill_up_for_each_other() -> None:
    config = DatasetConfig(max_examples=10, statement_share=0.5)
    few = choose_training(
        [statement(1, topic="interests"), *(reply(f"reply {n}", n) for n in range(30))], [], config=config
    )
    assert len(few) == 10
    none = choose_training([statement(n, topic="interests") for n in range(30)], [], config=config)
    assert len(none) == 10


def test_brief_replies_are_held_out_only_when_there_are_no_others() -> None:
    config = DatasetConfig(max_held_out=3, min_held_out=2)
    brief = [reply("ok then", n) for n in range(5)]
    telling = [reply(f"that is quite a long reply {n}", 10 + n) for n in range(4)]
    assert all(len(example.completion.split()) > 3 for example in choose_held_out(brief + telling, config=config))
    assert len(choose_held_out(brief, config=config)) == 2
