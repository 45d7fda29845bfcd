from __future__ import annotations

import random

from serving.extraction.asking.agreement import Answer, Sample, claims_of, group_claims


def answer(number: int, *texts: str, topic: str = "interests") -> Answer:
    return Answer(sample=Sample(topic, number), texts=texts)


def test_answers_that_share_most_words_are_one_group_and_samples_are_counted_once() -> None:
    answers = [
        answer(0, "I love hiking in the mountains", "I love hiking in mountains!"),
        answer(1, "i really love hiking in the mountains"),
        answer(2, "I play the piano"),
    ]
    first, second = group_claims(claims_of(answers))
    assert (len(first.samples), len(second.samples)) == (2, 1)
    assert second.wordings[0].text == "I play the piano"


def test_opposite_claims_never_agree() -> None:
    answers = [answer(0, "I like football"), answer(1, "I don't like football"), answer(2, "I hate football")]
    assert len(group_claims(claims_of(answers))) == 3


def test_groups_do_not_depend_on_the_order_of_answers() -> None:
    answers = [
        answer(number, text)
        for number, text in enumerate(
            ["I love red wine", "I love wine", "I love white wine", "I love red wine", "I play chess", "I play chess"]
        )
    ]
    expected = group_claims(claims_of(answers))
    for seed in range(20):
        shuffled = answers[:]
        random.Random(seed).shuffle(shuffled)
        assert group_claims(claims_of(shuffled)) == expected


def test_questions_others_and_empty_talk_are_no_claims() -> None:
    answers = [
        answer(
            0,
            "What do you like?",
            "He likes tea",
            "I think so",
            "ok",
            "I never said that.",
            "my wife",
            "I love it",
            "I think we can make more",
        )
    ]
    assert claims_of(answers) == []


def test_each_clause_of_an_answer_is_a_claim_of_its_own() -> None:
    claims = claims_of([answer(0, "I have a dog and I love tea. What about you?")])
    assert [claim.text for claim in claims] == ["I have a dog", "I love tea"]


def test_a_group_names_the_topics_that_brought_it_up_most_often_first() -> None:
    answers = [
        answer(0, "I love my dog", topic="interests"),
        answer(0, "I love my dog", topic="people_and_pets"),
        answer(1, "I love my dog", topic="people_and_pets"),
    ]
    (group,) = group_claims(claims_of(answers))
    assert group.topics == ("people_and_pets", "interests")
    assert len(group.samples) == 3
