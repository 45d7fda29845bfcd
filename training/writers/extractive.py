"""The offline question writer: finds what the user says about themselves and asks for it.

Nothing leaves the machine and nothing is invented: every statement's answer is a sentence of the user's own, and a
question that their words do not answer is answered by saying so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kit.canonical import sha256_json
from training.examples import Answer, Example, ask
from training.writers.cost import FREE, Cost
from training.writers.questions import Questions, load_questions
from training.writers.sentences import plain_case, sentences
from training.writers.state import WriterState
from training.writers.statements import Statement, read_statement
from training.writers.writer import Written
from transcripts.transcript import Transcript

_GREETING = re.compile(r"^(?:hey+|hi+|hello+|howdy|yo|sup|what'?s up|good (?:morning|evening|afternoon)|greetings)\b")
_MAX_GREETING_WORDS = 8
_OPEN_QUESTIONS_EACH = 3


@dataclass(frozen=True, kw_only=True)
class _Found:
    statement: Statement
    transcript_id: str
    turn_index: int


class ExtractiveWriter:
    """Asks open questions by topic, and yes/no questions about likes and dislikes, affirmed and denied."""

    remote = False

    def __init__(self, questions: Questions | None = None, *, seed: int = 0) -> None:
        self._questions = questions or load_questions()
        self._seed = seed

    @property
    def name(self) -> str:
        """``extractive/<version of the wording>``."""
        return f"extractive/{self._questions.version}"

    async def estimate(self, transcripts: Sequence[Transcript]) -> Cost:
        """Cost nothing."""
        return replace(FREE, estimated=True)

    async def begin(self, transcripts: Sequence[Transcript]) -> WriterState:
        """Be ready to collect at once."""
        return WriterState(writer=self.name, plan=self._plan(transcripts), phase="written")

    async def poll(self, state: WriterState, transcripts: Sequence[Transcript]) -> WriterState:
        """Change nothing."""
        state.require(writer=self.name, plan=self._plan(transcripts))
        return state

    async def collect(self, state: WriterState, transcripts: Sequence[Transcript]) -> Written:
        """Write."""
        state.require(writer=self.name, plan=self._plan(transcripts))
        return await asyncio.to_thread(self.written, transcripts)

    async def discard(self, state: WriterState) -> WriterState:
        """Have nothing to delete."""
        return replace(state, phase="discarded")

    def written(self, transcripts: Sequence[Transcript]) -> Written:
        """Return what there is to write, at once."""
        examples = tuple(self.write(transcripts, seed=self._seed))
        return Written(writer=self.name, examples=examples, dropped=(), cost=FREE)

    def _plan(self, transcripts: Sequence[Transcript]) -> str:
        return sha256_json([self.name, self._seed, [transcript.id for transcript in transcripts]])

    def write(self, transcripts: Sequence[Transcript], *, seed: int) -> list[Example]:
        """Return statements and negatives, ordered by transcript and turn; each sentence is used once.

        Equal transcripts and seeds give equal examples; no sentence is attributed to the user that they did not write.
        """
        found = [*_find(transcripts)]
        examples: list[Example] = []
        for item in found:
            examples += self._open(item, seed)
            examples += self._yes_no(item)
        return examples + self._unsaid(found, transcripts, seed)

    def _open(self, item: _Found, seed: int) -> list[Example]:
        """Ask by topic, in different wordings for the same sentence."""
        wordings = self._questions.topics[item.statement.topic]
        first = _choose(len(wordings), item.statement.sentence, seed)
        count = min(_OPEN_QUESTIONS_EACH, len(wordings))
        questions = [wordings[(first + step) % len(wordings)] for step in range(count)]
        return [self._example(item, question, item.statement.sentence) for question in questions]

    def _yes_no(self, item: _Found) -> list[Example]:
        """Ask whether the user likes the thing, and whether they dislike it: one is affirmed, one denied."""
        statement = item.statement
        if statement.object is None or statement.polarity is None:
            return []
        affirmed, denied = ("like", "dislike") if statement.polarity == "like" else ("dislike", "like")
        templates = self._questions.yes_no.model_dump()
        answers = self._questions.answers
        return [
            self._example(
                item,
                templates[affirmed].format(object=statement.object),
                answers.affirmed.format(sentence=statement.sentence),
                verdict="yes",
            ),
            self._example(
                item,
                templates[denied].format(object=statement.object),
                answers.denied.format(sentence=statement.sentence),
                negative=True,
                verdict="no",
            ),
        ]

    def _unsaid(self, found: list[_Found], transcripts: Sequence[Transcript], seed: int) -> list[Example]:
        """Ask about things that the user never mentioned, half as often as about those they did."""
        said = plain_case("\n".join(turn.text for transcript in transcripts for turn in transcript.user_turns))
        never = [thing for thing in self._questions.unsaid_objects if not _mentions(said, thing)]
        never.sort(key=lambda thing: sha256_json([seed, thing]))
        answer = self._questions.answers.unsaid
        template = self._questions.yes_no.like
        return [
            self._example(item, template.format(object=thing), answer, negative=True, verdict="no")
            for item, thing in zip(found[::2], never, strict=False)
        ]

    def _example(
        self, item: _Found, question: str, answer: str, *, negative: bool = False, verdict: Answer | None = None
    ) -> Example:
        return Example(
            kind="negative" if negative else "statement",
            prompt=ask(question),
            completion=answer,
            transcript_id=item.transcript_id,
            turn_index=item.turn_index,
            topic=None if negative else item.statement.topic,
            answer=verdict,
        )


def _find(transcripts: Sequence[Transcript]) -> Iterator[_Found]:
    """Yield each statement once, and how the user opened a conversation, by transcript and turn."""
    seen: set[str] = set()
    for transcript in transcripts:
        for index, turn in enumerate(transcript.turns):
            if turn.role != "user":
                continue
            for position, sentence in enumerate(sentences(turn.text)):
                is_opening = index <= 1 and position == 0
                statement = (_read_greeting(sentence) if is_opening else None) or read_statement(sentence)
                if statement is not None and (key := _words(sentence)) not in seen:
                    seen.add(key)
                    yield _Found(statement=statement, transcript_id=transcript.id, turn_index=index)


def _words(sentence: str) -> str:
    """The sentence without case and punctuation: two that differ in nothing else are one."""
    return " ".join(re.findall(r"\w+", plain_case(sentence)))


def _read_greeting(sentence: str) -> Statement | None:
    if _GREETING.match(plain_case(sentence)) and len(sentence.split()) <= _MAX_GREETING_WORDS:
        return Statement(sentence=sentence, topic="communication_style")
    return None


def _choose(count: int, sentence: str, seed: int) -> int:
    return int(sha256_json([seed, sentence])[:8], 16) % count


def _mentions(said: str, thing: str) -> bool:
    """Say whether any word of `thing` (four letters or more, in any inflection) was ever used."""
    words = [word for word in re.findall(r"\w+", thing.lower()) if len(word) >= 4] or [thing.lower()]
    return any(re.search(rf"\b{re.escape(word[:5])}", said) for word in words)
