"""Server-sent events, line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lorry.client.errors import NotAnswered, refusal


@dataclass
class EventReader:
    """Puts lines together; what an event named ``error`` says is raised."""

    _name: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, line: str) -> tuple[str, Any] | None:
        """Return the event that a line ends, with its data as JSON; None while there is none.

        Raises:
            Refused: for what the server says went wrong in the middle.
            NotAnswered: for an event that is no JSON.
        """
        if line.startswith("event:"):
            self._name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            self._data.append(line.removeprefix("data:").strip())
        elif not line.strip() and self._data:
            name, text = self._name, "\n".join(self._data)
            self._name, self._data = "", []
            return self._finish(name, text)
        return None

    def _finish(self, name: str, text: str) -> tuple[str, Any]:
        try:
            data = json.loads(text)
        except ValueError as exc:
            raise NotAnswered("an event of the stream is not JSON") from exc
        if name == "error" and isinstance(data, dict):
            raise refusal(int(data.get("status", 500)), data)
        return name, data
