from __future__ import annotations

from training.config import DatasetConfig
from training.examples import Example, Kind, ask
from training.selection import choose_held_out, choose_training, choose_watched


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


def talk(transcript_id: str, turn_index: int, completion: str, kind: Kind = "reply") -> Example:
    return Example(
        kind=kind, prompt=ask("And then?"), completion=completion, transcript_id=transcript_id, turn_index=turn_index
    )


def test_whole_conversations_are_watched_up_to_their_share_and_never_trained_on() -> None:
    examples = [talk(f"t{n // 4}", n % 4, f"this is what I said number {n}") for n in range(40)]
    trained, watched = choose_watched(examples, share=0.2, at_least=4, seed=1)
    assert sorted(trained + watched) == list(range(40))
    assert 8 <= len(watched) <= 11
    assert not {examples[i].transcript_id for i in trained} & {examples[i].transcript_id for i in watched}
    assert (trained, watched) == choose_watched(examples, share=0.2, at_least=4, seed=1)
    assert len({tuple(choose_watched(examples, share=0.2, at_least=4, seed=seed)[1]) for seed in range(9)}) > 3


def test_nothing_that_repeats_a_watched_reply_is_trained_on() -> None:
    replies = [talk(f"t{n // 4}", n % 4, f"this is what I said number {n}") for n in range(40)]
    statements = [talk(each.transcript_id, each.turn_index, each.completion, "statement") for each in replies]
    same_words = [talk("elsewhere", n, each.completion, "statement") for n, each in enumerate(replies)]
    about_others = [talk(each.transcript_id, 99, "I never said.", "negative") for each in replies]
    examples = replies + statements + same_words + about_others
    trained, watched = choose_watched(examples, share=0.2, at_least=4, seed=1)
    words = {examples[i].completion for i in watched}
    assert not words & {examples[i].completion for i in trained}
    assert len(trained) == 160 - 3 * len(watched)


def test_conversations_that_are_far_too_long_to_be_watched_are_passed_over() -> None:
    long = [talk(f"t{n // 10}", n % 10, f"this is what I said number {n}") for n in range(40)]
    assert choose_watched(long, share=0.1, at_least=2, seed=0) == (list(range(40)), [])
    brief = [talk("brief", n, f"this is what I said briefly, number {n}") for n in range(5)]
    for seed in range(9):
        trained, watched = choose_watched([*long, *brief], share=0.1, at_least=2, seed=seed)
        assert (trained, watched) == (list(range(40)), list(range(40, 45)))


def test_too_few_replies_are_all_trained_on_and_none_is_watched() -> None:
    few = [talk(f"t{n}", 0, f"this is what I said number {n}") for n in range(30)]
    everything = (list(range(30)), [])
    assert choose_watched(few, share=0.1, at_least=8, seed=0) == everything
    assert choose_watched(few, share=0.0, at_least=1, seed=0) == everything
    one = [talk("t", n, f"this is what I said number {n}") for n in range(30)]
    assert choose_watched(one, share=0.5, at_least=4, seed=0) == everything
