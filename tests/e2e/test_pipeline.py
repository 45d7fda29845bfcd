"""From transcripts to the HTTP profile: the `lorry` command as people type it, real training, real vLLM."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from lorry.keys import local_api_key
from lorry.local.stack import Stack
from registry.manifest import WEIGHTS_FILE
from tests.support.adapters import write_adapter
from tests.support.people import write_transcripts

USER = "ada"
QUICK = tuple(
    word
    for setting in ("steps=40", "learning_rate=0.002", "dataset.max_examples=60", "dataset.statement_share=0.5")
    for word in ("--set", setting)
)


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session")
async def gateway_stack(stack: Stack) -> Stack:
    await stack.ensure("gateway")
    return stack


@pytest.fixture(scope="session")
async def profile_of_ada(gateway_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `lorry run` reported; the run itself takes a few minutes, once."""
    path = write_transcripts(tmp_path_factory.mktemp("people") / "ada.jsonl")
    ran = await lorry(gateway_stack, "run", USER, str(path), "--json", *QUICK)
    found: dict[str, Any] = ran.json
    return found


@pytest.fixture
async def public(gateway_stack: Stack) -> Any:
    headers = {"authorization": f"Bearer {await local_api_key(gateway_stack.plan)}"}
    async with httpx.AsyncClient(
        base_url=gateway_stack.plan.gateway_url, headers=headers, timeout=300, trust_env=False
    ) as client:
        yield client


async def lorry(stack: Stack, *arguments: str) -> Ran:
    """Run the command as a process of its own, beside the running parts."""
    settings = stack.plan.settings
    environment = {
        "PATH": str(Path(sys.executable).parent),
        "LORRY_HOME": str(settings.home),
        "LORRY_PORT_BASE": str(settings.port_base),
        "LORRY_GATEWAY_PORT": str(settings.gateway_port),
        "LORRY_BASE_MODEL": settings.base_model,
        "LORRY_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lorry.cli",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def test_a_profile_is_served_whose_every_statement_quotes_its_user(
    profile_of_ada: dict[str, Any], public: httpx.AsyncClient, tmp_path: Path
) -> None:
    said = write_transcripts(tmp_path / "ada.jsonl").read_text()
    response = await public.get(f"/v1/users/{USER}/profile")
    assert response.status_code == 200, response.text
    profile = response.json()
    statements = [statement for topic in profile["topics"] for statement in topic["statements"]]
    assert profile["adapter"]["version_id"] == profile_of_ada["version_id"]
    assert statements, "nothing at all was stated of a person who says plain things in every conversation"
    for statement in statements:
        assert statement["support"]
        assert statement["contrast"] is not None, (
            "the engine gave log-probabilities under the adapter and under the base"
        )
        for quote in statement["support"]:
            assert json.dumps(quote["quote"])[1:-1] in said


async def test_the_profile_is_on_disk_in_four_files(profile_of_ada: dict[str, Any]) -> None:
    files = {path.name for path in Path(profile_of_ada["directory"]).iterdir()}
    assert files == {"profile.json", "USER_PROFILE.md", "facts.jsonl", "patterns.jsonl"}


async def test_the_profile_is_markdown_for_who_asks_for_it(
    profile_of_ada: dict[str, Any], public: httpx.AsyncClient
) -> None:
    response = await public.get(f"/v1/users/{USER}/profile", headers={"accept": "text/markdown"})
    assert response.headers["content-type"].startswith("text/markdown")
    assert response.text.startswith(f"# Profile of {USER}")


async def test_running_again_repeats_nothing(
    profile_of_ada: dict[str, Any], gateway_stack: Stack, tmp_path: Path
) -> None:
    path = write_transcripts(tmp_path / "ada.jsonl")
    ran = await lorry(gateway_stack, "run", USER, str(path), "--json", *QUICK)
    first, again = profile_of_ada["import"], ran.json["import"]
    assert (first["new"], again["new"], again["known"]) == (24, 0, 24)
    assert {**ran.json, "import": first} == profile_of_ada


async def test_status_shows_the_live_version_and_that_nothing_is_stale(
    profile_of_ada: dict[str, Any], gateway_stack: Stack
) -> None:
    (status,) = (await lorry(gateway_stack, "status", USER, "--json")).json
    assert (status["version"], status["profile_version"], status["stale"]) == (1, 1, "")
    assert status["own_loss"] < status["base_loss"]


async def test_the_profile_command_prints_what_the_gateway_serves(
    profile_of_ada: dict[str, Any], gateway_stack: Stack, public: httpx.AsyncClient
) -> None:
    printed = (await lorry(gateway_stack, "profile", USER, "--format", "json")).json
    served = (await public.get(f"/v1/users/{USER}/profile")).json()
    assert printed["topics"] == served["topics"]


async def test_an_adapter_goes_out_and_in_again_unchanged(
    profile_of_ada: dict[str, Any], gateway_stack: Stack, tmp_path: Path
) -> None:
    pulled = tmp_path / "pulled"
    assert (await lorry(gateway_stack, "adapters", "pull", USER, str(pulled))).code == 0
    pushed = await lorry(gateway_stack, "adapters", "push", str(pulled), "--user", "guest", "--live", "--json")
    shown = (await lorry(gateway_stack, "adapters", "show", USER, "--json")).json
    assert pushed.json["files"] == shown["manifest"]["files"]
    listed = (await lorry(gateway_stack, "adapters", "list", "--json")).json
    assert {row["owner"]["user"] for row in listed} >= {USER, "guest"}


@pytest.mark.parametrize("change", ["missing", "extra"])
async def test_a_directory_with_a_missing_or_extra_file_is_not_pushed(
    change: str, profile_of_ada: dict[str, Any], gateway_stack: Stack, tmp_path: Path
) -> None:
    pulled = tmp_path / "pulled"
    await lorry(gateway_stack, "adapters", "pull", USER, str(pulled))
    if change == "missing":
        (pulled / WEIGHTS_FILE).unlink()
    else:
        (pulled / "training_args.bin").write_bytes(b"pickle")
    ran = await lorry(gateway_stack, "adapters", "push", str(pulled), "--user", "bad")
    assert ran.code in {2, 4}
    assert (WEIGHTS_FILE if change == "missing" else "training_args.bin") in ran.err
    listed = (await lorry(gateway_stack, "adapters", "list", "--json")).json
    assert "bad" not in {row["owner"]["user"] for row in listed}


async def test_an_adapter_of_another_base_model_is_not_pushed(gateway_stack: Stack, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "foreign")
    ran = await lorry(gateway_stack, "adapters", "push", str(directory), "--user", "foreigner")
    assert ran.code == 2
    told = ran.err.replace("\n", " ")
    assert "maps 8 to 8 features" in told
    assert "this home's base model" in told
    listed = (await lorry(gateway_stack, "adapters", "list", "--json")).json
    assert "foreigner" not in {row["owner"]["user"] for row in listed}


async def test_a_query_is_answered_and_says_by_which_version(
    profile_of_ada: dict[str, Any], public: httpx.AsyncClient
) -> None:
    response = await public.post(f"/v1/users/{USER}/query", json={"question": "What do you love?", "max_tokens": 24})
    assert response.status_code == 200, response.text
    assert response.json()["answer"].strip()
    assert response.json()["adapter"]["version"] == 1


async def test_the_official_openai_client_streams_from_a_users_adapter(
    profile_of_ada: dict[str, Any], gateway_stack: Stack
) -> None:
    key = await local_api_key(gateway_stack.plan)
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{gateway_stack.plan.gateway_url}/v1") as client:
        stream = await client.chat.completions.create(
            model=f"users/{USER}",
            messages=[{"role": "user", "content": "What do you love?"}],
            max_tokens=16,
            temperature=0,
            stream=True,
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(pieces).strip()


async def test_an_unknown_user_is_not_found(profile_of_ada: dict[str, Any], public: httpx.AsyncClient) -> None:
    response = await public.get("/v1/users/nobody/profile")
    assert response.status_code == 404


async def test_a_user_without_an_adapter_is_told_what_to_do(
    profile_of_ada: dict[str, Any], gateway_stack: Stack, public: httpx.AsyncClient, tmp_path: Path
) -> None:
    path = write_transcripts(tmp_path / "new.jsonl", conversations=2, seed=7)
    assert (await lorry(gateway_stack, "import", "newcomer", str(path))).code == 0
    response = await public.get("/v1/users/newcomer/profile")
    assert response.status_code == 409
    assert "train" in response.json()["detail"]


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * 1024 * 1024)


BAD_FILES = {
    "not-utf8.txt": lambda path: path.write_bytes(b"Ada: hello\nBob: \xff\xfe\n"),
    "truncated.jsonl": lambda path: path.write_text(
        '{"messages": [{"role": "user", "content": "hi"}]}\n{"messages": ['
    ),
    "no-user.jsonl": lambda path: path.write_text('{"messages": [{"role": "assistant", "content": "hi"}]}\n'),
    "huge.txt": _sparse,
    "empty.txt": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_a_bad_file_is_refused_by_name_and_changes_nothing(
    name: str, gateway_stack: Stack, tmp_path: Path
) -> None:
    path = tmp_path / name
    BAD_FILES[name](path)
    speaker = ["--user-speaker", "Ada"] if name.endswith(".txt") else []
    ran = await lorry(gateway_stack, "import", "mallory", str(path), *speaker)
    assert ran.code == 2, ran
    assert name in ran.err
    assert (await lorry(gateway_stack, "status", "mallory")).code == 3


async def test_a_command_says_what_to_do_when_there_is_nothing_to_work_on(gateway_stack: Stack) -> None:
    ran = await lorry(gateway_stack, "build-dataset", "nobody")
    assert (ran.code, "lorry import" in ran.err) == (3, True)
