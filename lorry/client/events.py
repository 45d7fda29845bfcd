"""Server-sent events, line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lorry.client.errors import NotAnswered, refusal

_CHAT_ENDS = "[DONE]"
_SERVER_ERROR = "server_error"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event; its data was JSON. `id` is where a stream that broke off goes on."""

    name: str
    data: Any
    id: str = ""


@dataclass
class EventReader:
    """Puts lines together; what an event named ``error`` says is raised."""

    _name: str = ""
    _id: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, line: str) -> Event | None:
        """Return the event that a line ends; None while there is none.

        Raises:
            Refused: for what the server says went wrong in the middle.
            NotAnswered: for an event that is no JSON.
        """
        if line.startswith("event:"):
            self._name = line.removeprefix("event:").strip()
        elif line.startswith("id:"):
            self._id = line.removeprefix("id:").strip()
        elif line.startswith("data:"):
            self._data.append(line.removeprefix("data:").strip())
        elif not line.strip() and self._data:
            name, id, text = self._name, self._id, "\n".join(self._data)
            self._name, self._id, self._data = "", "", []
            return self._finish(name, id, text)
        return None

    def _finish(self, name: str, id: str, text: str) -> Event:
        data = _parsed(text)
        if name == "error" and isinstance(data, dict):
            raise refusal(int(data.get("status", 500)), data)
        return Event(name=name, data=data, id=id)


@dataclass
class ChatReader:
    """Reads the chunks of a chat completion; `ended` once the last one has come."""

    ended: bool = False

    def feed(self, line: str) -> dict[str, Any] | None:
        """Return the chunk that a line holds; None when it holds none.

        Raises:
            Refused: for what the server says went wrong in the middle.
            NotAnswered: for a chunk that is no JSON object.
        """
        if not line.startswith("data:"):
            return None
        text = line.removeprefix("data:").strip()
        if text == _CHAT_ENDS:
            self.ended = True
            return None
        chunk = _parsed(text)
        if not isinstance(chunk, dict):
            raise NotAnswered("a chunk of the stream is no object")
        if isinstance(error := chunk.get("error"), dict):
            status = 503 if error.get("type") == _SERVER_ERROR else 400
            raise refusal(status, {"detail": error.get("message"), "type": error.get("code") or error.get("type")})
        return chunk


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise NotAnswered("an event of the stream is not JSON") from exc
