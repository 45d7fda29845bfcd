"""What the writers that ask a service have in common: the plan over redacted transcripts, kept answers, the result."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from training.config import DatasetConfig
from training.errors import WriterError, WriterFailed, WriterTooExpensive
from training.examples import Example
from training.writers.cost import Cost, PriceTable, TokenUsage, add_costs
from training.writers.pairs import ReadAnswer, read_answer
from training.writers.plan import Item, Plan, make_plan
from training.writers.settings import WriterSettings
from training.writers.spool import Spool
from training.writers.state import ItemState, WriterState
from training.writers.writer import Written, count_dropped
from transcripts.transcript import Transcript

OnRedact = Callable[[Sequence[Transcript]], Sequence[Transcript]]
SAMPLES = 3
_CHARACTERS_A_TOKEN = 3.5
_TOKENS_BESIDE = 120
_SHOWN_CHARACTERS = 300
_ECHO_CHARACTERS = 24


class AnsweredAt(Protocol):
    """Gives the answer of an item that the spool has lost; None when nobody has it any more."""

    async def __call__(self, item_id: str, state: ItemState) -> KeptAnswer | None:
        """Return the answer."""


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """What a service wrote in answer to one item, and what that cost."""

    text: str
    stop_reason: str | None
    usage: TokenUsage

    def to_bytes(self) -> bytes:
        """Return the form that is spooled."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Rebuild what `to_bytes` wrote; None for a file that is damaged."""
        try:
            value = json.loads(data)
            return cls(text=value["text"], stop_reason=value["stop_reason"], usage=TokenUsage(**value["usage"]))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything a remote writer works with but the service itself."""

    name: str
    model: str
    settings: WriterSettings
    config: DatasetConfig
    prices: PriceTable
    spool: Spool
    redact: OnRedact | None
    key: str = ""

    def plan(self, transcripts: Sequence[Transcript]) -> Plan:
        """Return what is asked about the transcripts, redacted; examples keep the ids of those given."""
        shown = list(transcripts if self.redact is None else self.redact(transcripts))
        return make_plan(
            shown,
            ids=[transcript.id for transcript in transcripts],
            pairs=self.config.pairs,
            wording=f"{self.name} {self.key}",
            seed=self.config.seed,
        )

    def require(self, state: WriterState, transcripts: Sequence[Transcript]) -> Plan:
        """Return the plan that the state belongs to.

        Raises:
            WriterStale: it belongs to another.
        """
        plan = self.plan(transcripts)
        state.require(writer=self.name, plan=plan.digest)
        return plan

    def first_state(self, plan: Plan) -> WriterState:
        """Return the state before anything is asked."""
        items = {item.id: ItemState() for item in plan.items}
        return WriterState(writer=self.name, plan=plan.digest, phase="prepared" if items else "written", items=items)

    def read(self, answer: KeptAnswer, item: Item) -> ReadAnswer:
        """Return the examples in an answer."""
        return read_answer(answer.text, item, max_completion_characters=self.config.max_completion_characters)

    async def keep(self, item: Item, answer: KeptAnswer) -> None:
        """Keep an answer as soon as it is there, before any state calls it done; it is of use by a single good pair."""
        if self.read(answer, item).examples:
            await self.spool.put(item.id, answer.to_bytes())

    def settle(self, state: WriterState, item: Item, answer: KeptAnswer, *, batch: bool) -> WriterState:
        """Count an answer and what it cost; one without a single good pair is asked again, while rounds are left.

        Its usage is paid for either way. One that is of use is kept already: see `keep`.
        """
        cost = self.prices.cost(answer.usage, model=self.model, batch=batch)
        state = replace(state, spent=add_costs(state.spent, cost))
        read = self.read(answer, item)
        if read.examples:
            return state.with_items({item.id: replace(state.items[item.id], outcome="done", reason=None)})
        if answer.stop_reason in {"refusal", "content_filter"}:
            return self.give_up(state, item.id, "refused")
        cut = answer.stop_reason in {"max_tokens", "length"}
        reason = "cut_off" if cut else max(read.dropped, key=lambda key: read.dropped[key], default="empty")
        return self.reopen(state, item.id, reason)

    def reopen(self, state: WriterState, item_id: str, reason: str) -> WriterState:
        """Have an item asked again, or give it up when it was asked often enough."""
        item = state.items[item_id]
        if item.attempts >= self.settings.writer_rounds:
            return self.give_up(state, item_id, reason)
        return state.with_items({item_id: replace(item, outcome="open", reason=reason, batch=None)})

    def give_up(self, state: WriterState, item_id: str, reason: str) -> WriterState:
        """Settle an item without an answer."""
        return state.with_items({item_id: replace(state.items[item_id], outcome="given_up", reason=reason)})

    @contextmanager
    def telling_spent(self, state: WriterState) -> Iterator[None]:
        """Have a failure say what was paid for until then; who begins again pays for it again."""
        try:
            yield
        except WriterError as exc:
            if state.spent.usage.requests:
                exc.details["spent"] = state.spent.to_json()
            raise

    async def kept(self, item_id: str) -> KeptAnswer | None:
        """Return the spooled answer; None when there is none."""
        data = await self.spool.get(item_id)
        return None if data is None else KeptAnswer.from_bytes(data)

    def require_affordable(self, estimate: Cost) -> None:
        """Check an estimate against the limit.

        Raises:
            WriterTooExpensive: it is higher, or there is a limit and no price is known.
        """
        limit = self.settings.writer_max_dollars
        if limit is None:
            return
        if estimate.dollars is None:
            raise WriterTooExpensive(
                f"no price is known for {self.model}, and LORRY_WRITER_MAX_DOLLARS is {limit:g}: "
                "put its price into LORRY_WRITER_PRICES_FILE",
                field="LORRY_WRITER_MAX_DOLLARS",
            )
        if estimate.dollars > limit:
            raise WriterTooExpensive(
                f"writing would cost about ${estimate.dollars:.4f}, more than LORRY_WRITER_MAX_DOLLARS, ${limit:g}",
                field="LORRY_WRITER_MAX_DOLLARS",
                dollars=estimate.dollars,
            )

    def estimate(self, plan: Plan, *, prompt_tokens: int, batch: bool, cache: str = "off") -> Cost:
        """Return the cost of the whole plan, from the prompt tokens of all its items.

        Reading from a cache is not reckoned with, because nothing promises a hit; writing to it is.
        """
        output = sum(item.pairs * self.settings.writer_tokens_each for item in plan.items)
        usage = TokenUsage(requests=len(plan.items), output_tokens=output)
        kind = {"off": "input_tokens"}.get(cache, f"cache_write_{cache}_tokens")
        usage = replace(usage, **{kind: prompt_tokens})
        return self.prices.cost(usage, model=self.model, batch=batch, estimated=True)

    async def collect(self, state: WriterState, plan: Plan, *, lost: AnsweredAt) -> Written:
        """Return the examples of all answers, in the plan's order.

        Raises:
            WriterFailed: fewer requests were answered usefully than `writer_min_share`, or none.
        """
        examples: list[Example] = []
        dropped: Counter[str] = Counter()
        useful = 0
        for item in plan.items:
            kept = state.items[item.id]
            if kept.outcome != "done":
                dropped[f"request_{kept.reason or 'unanswered'}"] += 1
                continue
            answer = await self.kept(item.id) or await lost(item.id, kept)
            if answer is None:
                dropped["request_lost"] += 1
                continue
            read = self.read(answer, item)
            examples += read.examples
            dropped += read.dropped
            useful += 1
        self._require_enough(useful, len(plan.items), dropped, spent=state.spent)
        return Written(
            writer=self.name, examples=_distinct(examples, dropped), dropped=count_dropped(dropped), cost=state.spent
        )

    def no_useful_sample(self, state: WriterState, plan: Plan) -> WriterFailed:
        """Return why nothing else is asked: the reasons for which the samples are of no use, and what they cost."""
        reasons = {state.items[item.id].reason or "" for item in plan.items[:SAMPLES]}
        return WriterFailed(
            f"no sample was answered usefully ({', '.join(sorted(reasons))}): nothing else was asked; "
            f"paid for {state.spent.paid}. Another model may do better (LORRY_WRITER_MODEL)",
            spent=state.spent.to_json(),
        )

    def _require_enough(self, useful: int, total: int, dropped: Counter[str], *, spent: Cost) -> None:
        if total and (not useful or useful < self.settings.writer_min_share * total):
            why = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
            raise WriterFailed(
                f"{useful} of {total} requests were answered usefully, at least "
                f"{self.settings.writer_min_share:.0%} are asked ({why or 'nothing was answered'}); "
                f"paid for {spent.paid}",
                useful=useful,
                requests=total,
                reasons=dict(dropped),
            )


def _distinct(examples: Sequence[Example], dropped: Counter[str]) -> tuple[Example, ...]:
    """The first of each question and answer, over all chunks."""
    first: dict[tuple[Any, str], Example] = {}
    for example in examples:
        if (example.prompt, example.completion) in first:
            dropped["repeated"] += 1
        else:
            first[example.prompt, example.completion] = example
    return tuple(first.values())


def rough_tokens(text: str) -> int:
    """Return about how many tokens a prompt has, without asking anybody."""
    return round(len(text) / _CHARACTERS_A_TOKEN) + _TOKENS_BESIDE


def host_of(url: str | None) -> str:
    """Return the host and port of a service's address, without what else may stand in it."""
    try:
        found = urlsplit(url or "")
        return f"{found.hostname or url}:{found.port}" if found.port else str(found.hostname or url)
    except ValueError:
        return "LORRY_WRITER_URL"


def _texts(message: dict[str, Any]) -> list[str]:
    """The texts of a message, whose content is a text or a list of blocks."""
    content = message.get("content", "")
    blocks = content if isinstance(content, list) else [content]
    return [str(block.get("text", "")) if isinstance(block, dict) else str(block) for block in blocks]


def without_echo(told: str, *sent: dict[str, Any]) -> str:
    """Return the beginning of what a service says of requests, unless it repeats some of what it was sent."""
    texts = [text for params in sent for message in params.get("messages", ()) for text in _texts(message)]
    texts += [json.dumps(text)[1:-1] for text in texts]  # as it stands in JSON
    looked_at = told[: _SHOWN_CHARACTERS + _ECHO_CHARACTERS]  # what is cut off must not begin an echo either
    windows = [looked_at[at : at + _ECHO_CHARACTERS] for at in range(len(looked_at) - _ECHO_CHARACTERS + 1)]
    if any(window in text for window in windows for text in texts):
        return "(its message is not shown: it repeats what was sent)"
    return told[:_SHOWN_CHARACTERS]
