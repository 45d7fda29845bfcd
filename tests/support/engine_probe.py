"""Drives one vLLM engine of its own, with our worker parts or without, and prints what it saw as JSON.

``python -m tests.support.engine_probe ours|stock <base> <folder>``: the folder holds six adapters, a0 … a5; the engine
has two slots and room for four. A process of its own, so that neither vLLM nor our plugin touches the tests' process.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.launch import TARGET_MODULES, WORKER_EXTENSION
from serving.engine.worker.link import WorkerLink
from serving.errors import AdapterDamaged, AdapterNotLoaded
from tests.support.opened import opened_directory

SLOTS, CAPACITY = 2, 4


class Probe:
    """One engine and six adapters."""

    def __init__(self, *, base: Path, folder: Path, ours: bool) -> None:
        self.directories = [folder / f"a{number}" for number in range(6)]
        self.names = [f"v{number:032x}" for number in range(6)]
        self.ours = ours
        arguments: dict[str, Any] = {"worker_extension_cls": WORKER_EXTENSION} if ours else {}
        self.engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(base),
                dtype="float32",
                max_model_len=256,
                max_num_seqs=8,
                enforce_eager=True,
                enable_lora=True,
                max_loras=SLOTS,
                max_cpu_loras=CAPACITY,
                max_lora_rank=16,
                lora_target_modules=list(TARGET_MODULES),
                **arguments,
            )
        )
        self.activated: list[tuple[str, float]] = []
        self.lost: list[str] = []
        self.link = WorkerLink(
            self.engine.collective_rpc,
            on_activated=lambda each: self.activated.append((each.version_id, each.seconds)),
            on_lost=self.lost.append,
        )
        self.asked = 0

    def request(self, number: int) -> LoRARequest:
        return LoRARequest(
            lora_name=self.names[number], lora_int_id=number + 1, lora_path=str(self.directories[number])
        )

    async def text(self, number: int | None, *, tokens: int = 8, begun: asyncio.Event | None = None) -> str:
        self.asked += 1
        lora = None if number is None else self.request(number)
        sampling = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        answer = ""
        async for output in self.engine.generate("My name is", sampling, f"r{self.asked}", lora_request=lora):
            answer = output.outputs[0].text
            if begun:
                begun.set()
        return answer

    async def load(self, number: int) -> float:
        """Make an adapter usable; returns the seconds that took, the engine being idle."""
        began = time.perf_counter()
        if self.ours:
            await self.stage(number)
        else:
            await self.engine.add_lora(self.request(number))
        return time.perf_counter() - began

    async def stage(self, number: int, *, mark: str | None = None) -> Any:
        with opened_directory(self.directories[number]) as opened:
            files = opened.files if mark is None else replace(opened.files, mark=mark)
            return await self.link.stage(self.names[number], number=number + 1, files=files)

    async def slots(self) -> list[str | None]:
        slots: list[str | None] = (await self.link.residents())[0]["slots"]
        return slots

    async def use_all(self) -> dict[str, Any]:
        """Load four adapters, ask all of them in two slots, more than once."""
        seen: dict[str, Any] = {"base": await self.text(None)}
        seen["load_seconds"] = [await self.load(number) for number in range(CAPACITY)]
        if self.ours:
            seen["slots_after_loading"] = await self.slots()
        seen["texts"] = [await self.text(number) for number in range(CAPACITY)]
        together = await asyncio.gather(*(self.text(number) for number in (None, 0, 1, 2, 3, None)))
        seen["together"] = [
            text == alone for text, alone in zip(together, [seen["base"], *seen["texts"], seen["base"]], strict=True)
        ]
        return seen

    async def break_ours(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for path in self.directories[:CAPACITY]:
            shutil.rmtree(path)
        self.activated.clear()
        for _ in range(3):
            for number in range(CAPACITY):
                await self.text(number, tokens=2)
        await asyncio.sleep(0.1)
        seen["activation_seconds"] = sorted(seconds for _, seconds in self.activated)
        begun = asyncio.Event()
        running = asyncio.create_task(self.text(3, tokens=100, begun=begun))
        await asyncio.wait({running, asyncio.ensure_future(begun.wait())}, return_when=asyncio.FIRST_COMPLETED)
        seen["removed_while_running"] = await self.engine.remove_lora(4)
        reply = (await self.engine.collective_rpc("lorry_erase", args=(self.names[3],)))[0]
        seen["erased_while_running"] = reply["removed"]
        await running
        await self.engine.remove_lora(1)
        again = LoRARequest(lora_name=self.names[3], lora_int_id=40, lora_path=str(self.directories[3]))
        seen["registered_under_two_numbers"] = await self.engine.add_lora(again)
        seen["slots_before_erasing"] = await self.slots()
        removal = await self.link.erase(self.names[3])
        seen["erased"] = {"freed_bytes": removal.freed_bytes, "slots_zeroed": removal.slots_zeroed}
        seen["slots_after_erasing"] = await self.slots()
        seen["numbers_after_erasing"] = sorted(await self.engine.list_loras())
        seen["lost_text_is_the_bases"] = await self.text(3) == await self.text(None)
        seen["lost"] = self.lost
        for key, arguments in {"damaged": {"mark": "00" * 16}, "sound": {}}.items():
            try:
                await self.stage(4, **arguments)
                seen[key] = "staged"
            except (AdapterDamaged, AdapterNotLoaded) as exc:
                seen[key] = f"{type(exc).__name__}: {exc.message}"
        seen["registered_unstaged"] = await self.engine.add_lora(self.request(5))
        seen["still_answers"] = await self.text(0)
        return seen

    async def break_stock(self) -> dict[str, Any]:
        """Let the cache evict one of the first four, remove their directories, and ask for each; then for the base."""
        await self.load(4)
        for path in self.directories[:CAPACITY]:
            shutil.rmtree(path)
        after = [await self.text_or_error(number) for number in range(CAPACITY)]
        return {"after": after, "base_after": await self.text_or_error(None)}

    async def text_or_error(self, number: int | None) -> str:
        try:
            return await self.text(number)
        except Exception as exc:
            return type(exc).__name__


async def main(mode: str, base: Path, folder: Path) -> dict[str, Any]:
    """Run one probe and return what it saw."""
    probe = Probe(base=base, folder=folder, ours=mode == "ours")
    try:
        if probe.ours:
            await probe.link.open(folder / "signals")
        seen = await probe.use_all()
        return seen | await (probe.break_ours() if probe.ours else probe.break_stock())
    finally:
        probe.link.close()
        probe.engine.shutdown()


if __name__ == "__main__":
    print("SEEN " + json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))), flush=True)
