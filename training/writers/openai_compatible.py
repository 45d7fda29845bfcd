"""Any endpoint that speaks the OpenAI chat protocol as the question writer: a model of one's own, or another service's.

`begin` has one request answered; each `poll` asks a few of the others at once and spools every answer when it comes, as
only these can give it again. Where the endpoint does not know structured output, it is asked for plain JSON, and every
answer is checked all the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from kit.errors import LorryError
from kit.tls import authorities
from training.errors import WriterRefused, WriterUnavailable
from training.writers.cost import Cost, TokenUsage
from training.writers.plan import Item
from training.writers.remote import SAMPLES, Desk, KeptAnswer, host_of, rough_tokens, without_echo
from training.writers.settings import WriterSettings
from training.writers.state import ItemState, WriterState
from training.writers.wording import answer_schema, load_wording
from training.writers.writer import Written
from transcripts.transcript import Transcript

_MODES = ("json_schema", "json_object", "text")
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_MAY_NOT_KNOW_THE_FORMAT = {400, 415, 422, 501}
_FIRST_PAUSE_SECONDS = 0.5
_TOKENS_BESIDE_PAIRS = 512
_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"


class OpenAICompatibleWriter:
    """Writes pairs through ``POST <url>/chat/completions``."""

    remote = True

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        if desk.settings.writer_url is None:
            raise WriterRefused("name the service in LORRY_WRITER_URL, such as http://host:8000/v1", field="writer_url")
        if not desk.model:
            raise WriterRefused("name the model in LORRY_WRITER_MODEL", field="writer_model")
        self._dialect = _Dialect()

    @property
    def name(self) -> str:
        """``openai/<version of the wording>:<model>``."""
        return self._desk.name

    async def estimate(self, transcripts: Sequence[Transcript]) -> Cost:
        """Reckon the tokens from the length of the prompts: the protocol has no way to count them. Nothing is sent."""
        plan = self._desk.plan(transcripts)
        tokens = sum(rough_tokens(message["content"]) for item in plan.items for message in _messages(item))
        return self._desk.estimate(plan, prompt_tokens=tokens, batch=False)

    async def begin(self, transcripts: Sequence[Transcript]) -> WriterState:
        """Check the estimate against the limit and have one request answered."""
        plan = self._desk.plan(transcripts)
        state = self._desk.first_state(plan)
        if state.written:
            return state
        self._desk.require_affordable(await self.estimate(transcripts))
        async with _Endpoint(self._desk.settings, self._dialect) as endpoint:
            for item in plan.items[:SAMPLES]:
                with self._desk.telling_spent(state):
                    answered = await self._ask(item, _MODES[0] if state.mode is None else state.mode, endpoint)
                state = self._settle(replace(state, mode=answered.mode), item, answered)
                if state.items[item.id].outcome == "done":
                    return _advance(state)
        raise self._desk.no_useful_sample(state, plan)

    async def poll(self, state: WriterState, transcripts: Sequence[Transcript]) -> WriterState:
        """Ask the next few requests at once; one that the service refuses is given up, the others go on.

        Raises:
            WriterUnavailable: none of them was answered.
        """
        plan = self._desk.require(state, transcripts)
        names = state.named("open")[: self._desk.settings.writer_concurrency]
        if state.phase != "running" or not names:
            return state
        items = [plan.by_id[name] for name in names]
        async with _Endpoint(self._desk.settings, self._dialect) as endpoint:
            asked = (self._ask(item, state.mode or _MODES[0], endpoint) for item in items)
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if len(failures) == len(items):
            raise failures[0]
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, _Answered):
                state = self._settle(replace(state, mode=outcome.mode), item, outcome)
            elif isinstance(outcome, WriterRefused):
                state = self._desk.give_up(state, item.id, "refused")
            elif not isinstance(outcome, WriterUnavailable):  # those are asked again by the next poll
                raise outcome
        return _advance(state)

    async def collect(self, state: WriterState, transcripts: Sequence[Transcript]) -> Written:
        """Return what was written; an answer that the spool has lost is lost."""
        return await self._desk.collect(state, self._desk.require(state, transcripts), lost=_nobody)

    async def discard(self, state: WriterState) -> WriterState:
        """Clear the spool; such a service keeps nothing that could be deleted by its protocol."""
        await self._desk.spool.clear()
        return replace(state, phase="discarded", wait_seconds=0.0)

    async def _ask(self, item: Item, mode: str, endpoint: _Endpoint) -> _Answered:
        kept = await self._desk.kept(item.id)  # bought by a process that was killed before it could say so
        if kept is not None:
            return _Answered(answer=kept, mode=mode)
        for candidate in _MODES[_MODES.index(mode) :]:
            try:
                answer = await endpoint.ask(_body(item, candidate, self._desk))
            except _FormatUnknown as exc:
                refusal = exc
                continue
            await self._desk.keep(item, answer)
            return _Answered(answer=answer, mode=candidate)
        raise refusal

    def _settle(self, state: WriterState, item: Item, answered: _Answered) -> WriterState:
        asked = replace(state.items[item.id], outcome="asked", attempts=state.items[item.id].attempts + 1)
        return self._desk.settle(state.with_items({item.id: asked}), item, answered.answer, batch=False)


@dataclass(frozen=True, kw_only=True)
class _Answered:
    answer: KeptAnswer
    mode: str


class _FormatUnknown(WriterRefused):
    """The service refused the request, perhaps because of the form of answer that was asked for."""


@dataclass
class _Dialect:
    """What was learnt of a service: how it calls the most tokens of an answer; OpenAI's newer models know one name."""

    limit: str = _LIMIT


class _Endpoint:
    """The HTTP side: one call, tried again while that may help."""

    def __init__(self, settings: WriterSettings, dialect: _Dialect) -> None:
        self._settings = settings
        self._dialect = dialect
        key = settings.writer_api_key
        self._client = httpx.AsyncClient(
            base_url=(settings.writer_url or "").rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=settings.writer_timeout_seconds,
            verify=authorities(by_environment=True),
        )

    async def __aenter__(self) -> _Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, body: dict[str, Any]) -> KeptAnswer:
        """Return the answer.

        Raises:
            WriterUnavailable: not even after several tries.
            WriterRefused: it will not answer that.
        """
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, self._settings.writer_attempts + 1):
            wait: float | None = None
            try:
                response = await self._post(body)
            except httpx.InvalidURL as exc:
                raise WriterRefused(f"LORRY_WRITER_URL is no address: {exc}", field="LORRY_WRITER_URL") from exc
            except httpx.UnsupportedProtocol as exc:
                raise WriterRefused("LORRY_WRITER_URL must begin with http://", field="LORRY_WRITER_URL") from exc
            except httpx.TransportError as exc:
                error: LorryError = WriterUnavailable(
                    f"the service at {host_of(self._settings.writer_url)} does not answer: {type(exc).__name__}"
                )
                error.__cause__ = exc
            else:
                if response.is_success:
                    return _answer(response)
                wait = _retry_after(response)
                error = _refusal(response, wait, sent=body)
            longest = self._settings.writer_longest_pause_seconds
            last = attempt == self._settings.writer_attempts
            if not isinstance(error, WriterUnavailable) or last or (wait is not None and wait > longest):
                raise error
            await asyncio.sleep(min(pause if wait is None else wait, longest))
            pause *= 2
        raise AssertionError("unreachable")

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        limit = self._dialect.limit
        response = await self._client.post("chat/completions", json=_with_limit(body, limit))
        if response.status_code == 400 and limit == _LIMIT and _NEWER_LIMIT in response.text:
            self._dialect.limit = _NEWER_LIMIT
            response = await self._client.post("chat/completions", json=_with_limit(body, _NEWER_LIMIT))
        return response


def _advance(state: WriterState) -> WriterState:
    return replace(state, phase="running" if state.named("open") else "written", wait_seconds=0.0)


async def _nobody(item_id: str, state: ItemState) -> KeptAnswer | None:
    return None


def _messages(item: Item) -> list[dict[str, str]]:
    wording = load_wording()
    task = f"{wording.shared(item)}\n\n{wording.task(item)}"
    return [{"role": "system", "content": wording.system}, {"role": "user", "content": task}]


def _body(item: Item, mode: str, desk: Desk) -> dict[str, Any]:
    messages = _messages(item)
    body: dict[str, Any] = {
        "model": desk.model,
        "messages": messages,
        _LIMIT: item.pairs * 2 * desk.settings.writer_tokens_each + _TOKENS_BESIDE_PAIRS,
        "seed": desk.config.seed,
    }
    if mode == "json_schema":
        schema = {"name": "pairs", "strict": True, "schema": answer_schema()}
        return {**body, "response_format": {"type": "json_schema", "json_schema": schema}}
    described = f"\nAnswer with nothing but a JSON object of this schema:\n{json.dumps(answer_schema())}"
    messages[-1] = {**messages[-1], "content": messages[-1]["content"] + described}
    return {**body, "response_format": {"type": "json_object"}} if mode == "json_object" else body


def _with_limit(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {name if key == _LIMIT else key: value for key, value in body.items()}


def _refusal(response: httpx.Response, wait: float | None, *, sent: dict[str, Any]) -> LorryError:
    told = f"the service answered {response.status_code}"
    if response.status_code in _PASSING or (response.status_code >= 500 and response.status_code != 501):
        return WriterUnavailable(told, retry_after_seconds=wait)
    if response.status_code in {401, 403}:
        return WriterRefused(f"{told}: check LORRY_WRITER_API_KEY", field="LORRY_WRITER_API_KEY")
    kind = _FormatUnknown if response.status_code in _MAY_NOT_KNOW_THE_FORMAT else WriterRefused
    return kind(f"{told}: {without_echo(response.text, sent)}")


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _answer(response: httpx.Response) -> KeptAnswer:
    """Return what a reply says; one that is not well formed counts as an empty answer, to be asked again."""
    try:
        value = response.json()
        choice = value["choices"][0]
        text = choice["message"].get("content") or ""
        reason = choice.get("finish_reason")
        usage = value.get("usage") or {}
        refused = bool(choice["message"].get("refusal"))
        tokens = TokenUsage(
            requests=1,
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return KeptAnswer(text="", stop_reason=None, usage=TokenUsage(requests=1))
    return KeptAnswer(text=str(text), stop_reason="refusal" if refused else reason, usage=tokens)
