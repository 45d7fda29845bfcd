import pytest

from training.writers.statements import read_statement


@pytest.mark.parametrize(
    "sentence",
    [
        "My brother said I hate my job",
        "He thinks I like horror movies",
        "It is not true that I love pizza",
        "I never said I like cats",
        "I can't say I like jazz",
        "The doctor asked why I love smoking",
        "My character says I love killing people",
        "I don't only like dogs",
        "I love nothing in the morning",
        "I like no sports at all",
        "I don't like anything but jazz",
        "Everyone assumes I am a doctor",
        "I am no longer a student",
        "She wrote: i am a lawyer",
    ],
)
def test_what_others_say_or_what_is_denied_around_it_is_no_statement(sentence: str) -> None:
    assert read_statement(sentence) is None


def test_what_the_user_says_of_themselves_still_is() -> None:
    found = read_statement("I love hiking in the hills")
    assert found is not None
    assert (found.topic, found.polarity) == ("interests", "like")
