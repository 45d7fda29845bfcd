"""What benchmarks ask, and how they read the answers."""

from __future__ import annotations

import pytest

from bench.load import Answer, Ask, at_quantile, require_answers


def ask(seed: int) -> Ask:
    return Ask(model="v" + "0" * 32, prompt_tokens=32, answer_tokens=4, seed=seed)


def test_a_request_has_exactly_its_tokens_and_no_two_share_a_prefix() -> None:
    prompts = [ask(seed).body(stream=False)["prompt"] for seed in range(200)]
    assert all(isinstance(prompt, list) and len(prompt) == 32 for prompt in prompts)
    assert len({tuple(prompt[:4]) for prompt in prompts}) == 200  # type: ignore[index]
    assert ask(1).body(stream=True)["ignore_eos"] is True


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_a_value_that_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert at_quantile(list(range(100, 0, -1)), share) == expected


def test_a_failed_request_ends_the_measurement() -> None:
    sound = Answer(ask=ask(1), sent_at=0.0, seconds=1.0, first_token_seconds=0.5)
    require_answers([sound])
    with pytest.raises(RuntimeError, match="503 not now"):
        require_answers(
            [sound, Answer(ask=ask(2), sent_at=0.0, seconds=1.0, first_token_seconds=0, failure="503 not now")]
        )
