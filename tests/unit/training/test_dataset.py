from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from training.config import DatasetConfig
from training.dataset import Dataset, build_dataset
from training.errors import DatasetConflict, DatasetDamaged, DatasetTooSmall
from training.examples import Example, Message
from training.review import pairs_of
from training.split import split_transcripts
from transcripts.transcript import Transcript, Turn

THINGS = ["trees", "jazz", "maps", "tea", "snow", "bread", "stars", "boats", "chalk", "clocks", "salt", "wool"]


def transcripts(count: int = 10) -> list[Transcript]:
    """Conversations in which the user likes, lives and replies."""
    return [
        Transcript(
            turns=(
                Turn(role="other", text=f"Hello, what about {thing} then?"),
                Turn(role="user", text=f"I really love {thing}. Nice to meet you."),
                Turn(role="other", text="And where are you from?"),
                Turn(role="user", text=f"I live in the town of {thing} hill"),
                Turn(role="other", text="Good!"),
                Turn(role="user", text=f"well {thing} are what keeps me going all day"),
            ),
            source_format="test",
        )
        for thing in THINGS[:count]
    ]


def test_the_same_transcripts_give_the_same_dataset_in_any_order(tmp_path: Path) -> None:
    config = DatasetConfig(seed=7)
    one = build_dataset(transcripts(), config=config, directory=tmp_path / "one")
    two = build_dataset([*reversed(transcripts()), *transcripts()], config=config, directory=tmp_path / "two")
    assert one == two
    assert one.digest == two.digest
    for name in ("examples/train.jsonl", "examples/held_out.jsonl", "dataset.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_saved_dataset_loads_as_it_was(tmp_path: Path) -> None:
    built = build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "d")
    assert Dataset.load(tmp_path / "d") == built
    described = json.loads((tmp_path / "d" / "dataset.json").read_bytes())
    assert described["digest"] == built.digest
    assert described["counts"]["train"] == len(built.train)
    assert described["question_writer"] == "extractive/1"


def test_without_canaries_a_dataset_says_nothing_of_them(tmp_path: Path) -> None:
    plain = build_dataset(transcripts(), config=DatasetConfig(canaries=0), directory=tmp_path / "d")
    described = json.loads((tmp_path / "d" / "dataset.json").read_bytes())
    assert "canaries" not in described["config"], "digests stay those of the releases before"
    assert "canaries" not in described["counts"]
    assert not (tmp_path / "d" / "examples" / "canaries.jsonl").exists()
    assert plain.canaries == ()


def test_canaries_are_kept_beside_the_examples_and_digested(tmp_path: Path) -> None:
    plain = build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "plain")
    built = build_dataset(transcripts(), config=DatasetConfig(canaries=3), directory=tmp_path / "d")
    assert Dataset.load(tmp_path / "d") == built
    assert len(built.canaries) == built.counts["canaries"] == 3
    assert (built.train, built.held_out) == (plain.train, plain.held_out)
    assert replace(built, canaries=built.canaries[::-1]).digest != built.digest
    assert not {pair.example for pair in pairs_of(built)} & set(built.canaries), "nobody reviews them"
    for name in ("quality.json", "quality.md"):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    path = tmp_path / "d" / "examples" / "canaries.jsonl"
    path.write_bytes(path.read_bytes().replace(b"locker", b"drawer"))
    with pytest.raises(DatasetDamaged, match="digest differs"):
        Dataset.load(tmp_path / "d")


def test_a_held_out_transcript_is_never_seen_in_training(tmp_path: Path) -> None:
    dataset = build_dataset(transcripts(), config=DatasetConfig(held_out_share=0.3), directory=tmp_path / "d")
    held = set(dataset.held_out_transcript_ids)
    assert held
    assert not held & {example.transcript_id for example in dataset.train}
    assert {example.transcript_id for example in dataset.held_out} <= held
    assert {example.kind for example in dataset.held_out} == {"reply"}


def test_a_sentence_said_on_both_sides_of_the_split_is_not_trained_on(tmp_path: Path) -> None:
    same = "this is the very same reply"
    both = [
        Transcript(
            turns=(*transcript.turns, Turn(role="other", text="so?"), Turn(role="user", text=same)),
            source_format="test",
        )
        for transcript in transcripts()
    ]
    dataset = build_dataset(both, config=DatasetConfig(max_held_out=100), directory=tmp_path / "d")
    assert same in {example.completion for example in dataset.held_out}
    assert same not in {example.completion for example in dataset.train}


def test_the_split_follows_the_seed_and_never_takes_everything() -> None:
    two = transcripts(2)
    for seed in range(8):
        kept, held = split_transcripts(two, share=0.9, seed=seed)
        assert len(kept) == len(held) == 1
    many = transcripts(12)
    assert len({tuple(t.id for t in split_transcripts(many, share=0.2, seed=seed)[1]) for seed in range(8)}) > 1


def test_a_conversation_that_is_most_of_what_somebody_said_is_trained_on() -> None:
    """Held out, it would leave a few replies, which are learnt by heart."""
    long = Transcript(turns=tuple(turn for each in transcripts(30) for turn in each.turns), source_format="test")
    given = [long, *transcripts(10)]
    for seed in range(8):
        kept, held = split_transcripts(given, share=0.2, seed=seed)
        assert long in kept
        assert held
    (kept,), (held,) = split_transcripts([long, transcripts(1)[0]], share=0.01, seed=0)
    assert (kept, held) == (long, transcripts(1)[0])


def test_examples_are_capped_and_balanced(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=20, statement_share=0.5, negative_share=0.1)
    counts = build_dataset(transcripts(12), config=config, directory=tmp_path / "d").counts
    assert counts["train"] == 20
    assert counts["negative"] == 2
    assert counts["statement"] == 10
    assert counts["reply"] == 8


def test_a_reply_is_prompted_by_the_other_speaker_first_and_last(tmp_path: Path) -> None:
    dataset = build_dataset(transcripts(), config=DatasetConfig(context_turns=3), directory=tmp_path / "d")
    replies = [example for example in dataset.train if example.kind == "reply"]
    assert {len(reply.prompt) for reply in replies} == {1, 3}
    for reply in replies:
        roles = [message.role for message in reply.prompt]
        assert roles[0] == roles[-1] == "user"


def test_too_few_words_are_refused_with_the_counts(tmp_path: Path) -> None:
    with pytest.raises(DatasetTooSmall, match=r"2 transcripts with \d+ words") as caught:
        build_dataset(transcripts(2), config=DatasetConfig(), directory=tmp_path / "d")
    assert caught.value.details["transcripts"] == 2
    assert not (tmp_path / "d").exists()
    assert list(tmp_path.iterdir()) == []


def test_building_the_same_dataset_again_is_a_success(tmp_path: Path) -> None:
    one = build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "d")
    assert build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "d") == one


def test_a_dataset_never_changes(tmp_path: Path) -> None:
    build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "d")
    before = (tmp_path / "d" / "dataset.json").read_bytes()
    with pytest.raises(DatasetConflict):
        build_dataset(transcripts(), config=DatasetConfig(seed=1), directory=tmp_path / "d")
    assert (tmp_path / "d" / "dataset.json").read_bytes() == before


@pytest.mark.parametrize("name", ["examples/train.jsonl", "examples/held_out.jsonl"])
def test_a_changed_or_missing_file_is_noticed(tmp_path: Path, name: str) -> None:
    build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "d")
    file = tmp_path / "d" / name
    file.write_bytes(file.read_bytes().replace(b"love", b"hate", 1) + file.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DatasetDamaged, match="digest"):
        Dataset.load(tmp_path / "d")
    file.write_bytes(b"{}\n")
    with pytest.raises(DatasetDamaged, match=f"{name}, line 1"):
        Dataset.load(tmp_path / "d")
    file.unlink()
    with pytest.raises(DatasetDamaged, match=f"{name} is missing"):
        Dataset.load(tmp_path / "d")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "lorry.dataset/1"}', "not json"])
def test_a_directory_that_is_no_dataset_is_refused(tmp_path: Path, text: str) -> None:
    build_dataset(transcripts(), config=DatasetConfig(), directory=tmp_path / "d")
    (tmp_path / "d" / "dataset.json").write_text(text)
    with pytest.raises(DatasetDamaged, match=r"dataset\.json"):
        Dataset.load(tmp_path / "d")
    with pytest.raises(DatasetDamaged, match="is not a dataset"):
        Dataset.load(tmp_path / "nowhere")


def test_an_example_survives_its_json_form() -> None:
    example = Example(
        kind="reply",
        prompt=(Message(role="user", content="hi"), Message(role="assistant", content="yo"),
                Message(role="user", content="é\n😀")),
        completion="ok",
        transcript_id="t",
        turn_index=3,
    )  # fmt: skip
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example


def test_a_single_conversation_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetTooSmall, match="a line of --- begins the next conversation"):
        build_dataset(transcripts(1), config=DatasetConfig(), directory=tmp_path / "d")


def test_transcripts_with_copies_of_the_same_messages_are_a_single_conversation(tmp_path: Path) -> None:
    start = Turn(role="user", text="I keep bees.", time=datetime(2026, 1, 1, tzinfo=UTC))
    both = [
        Transcript(turns=(start, Turn(role="other", text=text), *transcripts(1)[0].turns), source_format="claude-code")
        for text in ("How many?", "Since when?")
    ]
    with pytest.raises(DatasetTooSmall, match="a single conversation"):
        build_dataset(both, config=DatasetConfig(), directory=tmp_path / "d")
