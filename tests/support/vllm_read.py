"""What of vLLM Lorry replaces or leans on, as it was read, in each version that Lorry works with.

Sources are read from vLLM's files and nothing of it is imported: so they can be compared also of a vLLM whose compiled
parts or requirements are not there.

``python -m tests.support.vllm_read DIRECTORY [OTHER]`` prints what differs between the vLLM that this interpreter has,
or one under OTHER, and the one under DIRECTORY, file of ours by file, and the entries that would say so here. An entry
is written down once its difference was read, and what it means for the named file of ours was done.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from serving.engine.vllm_version import SUPPORTED

Known = str | dict[str, str]
"""A digest: of every version that Lorry works with, or by version."""

READ: dict[str, dict[str, Known]] = {
    "loader.py": {  # takes the place of the first, and meets its caller's expectations
        "vllm.entrypoints.openai.models.serving:OpenAIServingModels.resolve_lora": "b9ef864b9ccd3310",
        "vllm.entrypoints.openai.models.serving:OpenAIServingModels.__init__": "0218cc457c0bbb8b",
        "vllm.entrypoints.serve.engine.serving:BaseServing._check_model": "5a2f4707ffb7f367",
        "vllm.entrypoints.serve.engine.serving:BaseServing._maybe_get_adapters": "c7bc850c2f8df5c3",
    },
    "resolver.py": {  # a refusal carries its status and message to the client
        "vllm.lora.resolver:LoRAResolver": "c5ebbd69e376fa99",
        "vllm.lora.request:LoRARequest": "7ee5c23f85b6a4f3",
        "vllm.exceptions:GracefulHTTPError": "1e99380970c30c71",
        "vllm.entrypoints.serve.exception_handling.error_response:create_error_response": {
            "0.32": "0a60b04b68103828",
            "0.33": "aaaac15a4762eb45",
        },
    },
    "residents.py": {  # stands in for the first, counts on what it raises and aborts, and on the order of add and abort
        "vllm.v1.engine.async_llm:AsyncLLM.generate": {"0.32": "5bd0ee90459b0e29", "0.33": "f8205b7b520cf747"},
        "vllm.v1.engine.async_llm:AsyncLLM.add_request": "ec36c4501b3260fe",
        "vllm.v1.engine.async_llm:AsyncLLM._add_request": "588d66be1f23f19b",
        "vllm.v1.engine.async_llm:AsyncLLM.abort": "1f25d1cf31395eb5",
        "vllm.v1.engine.output_processor:OutputProcessor.abort_requests": "6dd03abb8ea35e7c",
    },
    "sequences.py": {  # puts a table that tells in the place of the output processor's
        "vllm.v1.engine.output_processor:OutputProcessor.add_request": "8e0315ddb4d60fdc",
        "vllm.v1.engine.output_processor:OutputProcessor.process_outputs": {
            "0.32": "9e116796002e75f2",
            "0.33": "06811284749d457d",
        },
        "vllm.v1.engine.output_processor:OutputProcessor._finish_request": {
            "0.32": "976ff7fc6fd7f80d",
            "0.33": "2501fce522640256",
        },
    },
    "stopping.py": {  # the engine is shut down first, by this call, while requests still come in
        "vllm.v1.engine.async_llm:AsyncLLM.shutdown": "bdbf42b739a6731d",
        "vllm.v1.engine.output_processor:OutputProcessor.propagate_error": "7acce6170d1783dd",
        "vllm.v1.engine.exceptions:EngineDeadError": {"0.32": "357e734a838cb2b3", "0.33": "e80099825a471223"},
        "vllm.entrypoints.launchers.launcher:serve_http": "f471b91743318731",
    },
    "lora_gauge.py": {  # takes a metric out of the loggers that the first makes; the second looks for it
        "vllm.v1.metrics.loggers:StatLoggerManager.__init__": "6e75cf036af8369b",
        "vllm.v1.metrics.loggers:PrometheusStatLogger.record": "a506cbde79285412",
    },
    "guard.py, door.py, priority.py and routes.py": {  # the order in which the app is put together
        "vllm.entrypoints.launchers.app:build_app": "6438b7e524cb0b4f",
        "vllm.entrypoints.serve.middleware.register:init_entrypoints_middleware": "583c2958f2eb48d0",
        "vllm.entrypoints.launchers.api_server.app_state:init_app_state": {
            "0.32": "b407daf2ab66dd1e",
            "0.33": "e277407c9ced7985",
        },
        "vllm.plugins.endpoint_plugins.interface": "b4acdb222013594d",
        "vllm.plugins:load_endpoint_plugins": "08e20b33e14cd7d5",
        "vllm.entrypoints.generate.base.serving:GenerateBaseServing._get_priority": "49bdb5f5f7e19665",
    },
    "plugin.py": {
        "vllm.plugins:load_general_plugins": "59a85a7fa0b075b7",
    },
    "launch.py": {  # how the arguments that it checks are read
        "vllm.utils.argparse_utils": {"0.32": "d1330ebc9e8fc4ef", "0.33": "f0ad2c5e6bac21e3"},
    },
    "scheduler_seam.py": {  # runs around the first, which reads what is set for the call; the others say who is there
        "vllm.v1.core.sched.scheduler:Scheduler.schedule": {"0.32": "da4f2cf2fc39c39e", "0.33": "fa34c8a13c0a8936"},
        "vllm.v1.core.sched.scheduler:Scheduler.get_request_counts": "c901ce17db93c7dd",
        "vllm.v1.core.sched.request_queue:PriorityRequestQueue": "00ef516ae076fc93",
        "vllm.v1.core.sched.async_scheduler:AsyncScheduler": {"0.32": "157edcf67cd38116", "0.33": "991e40506b5d430d"},
    },
    "cache_paths.py": {  # what keys an adapter's blocks in the prefix cache
        "vllm.v1.core.kv_cache_utils:_gen_lora_extra_hash_keys": "4f67791285cae1c3",
        "vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys": "fabb6e4b928af21a",
        "vllm.v1.core.kv_cache_utils:get_request_block_hasher": {
            "0.32": "68c195e3879cc4c2",
            "0.33": "6e4728966af6ef0c",
        },
    },
    "worker/extension.py": {  # how it gets into the worker, and when it is called
        "vllm.v1.worker.worker_base:WorkerWrapperBase.init_worker": {
            "0.32": "f84f7abf9c0ead66",
            "0.33": "955becf37bc404cc",
        },
        "vllm.v1.engine.core:EngineCore.collective_rpc": "f0d85bf03430af63",
        "vllm.v1.engine.core:EngineCoreProc._process_input_queue": {
            "0.32": "215a7d373e636f98",
            "0.33": "17eae793ce1b6e67",
        },
    },
    "worker/doze.py": {  # its readers wait as it is done there
        "vllm.distributed.device_communicators.shm_broadcast:SpinCondition": {
            "0.32": "54573817ad9b208f",
            "0.33": "574856ed723f0cc9",
        },
    },
    "worker/seeds.py": {  # runs around the first, before every step; the second takes draws back
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner._update_states": "326599f31b273b94",
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner._bookkeeping_sync": "13c3e81003a7e168",
    },
    "worker/preparation.py": {
        # called on the stager's thread: they must touch nothing that the engine's thread changes
        "vllm.lora.model_manager:LoRAModelManager._create_merged_loras_inplace": {
            "0.32": "1b64ebe57c3d70e4",
            "0.33": "78c8b7e7ed5980df",
        },
        "vllm.lora.model_manager:LoRAModelManager._get_lora_layer_weights": {
            "0.32": "90bb2aa34ddc68c7",
            "0.33": "8706574ab797aef1",
        },
        "vllm.lora.lora_model:LoRAModel": "31086f67e8aa4ef6",
        "vllm.lora.lora_weights:LoRALayerWeights": "54a6aabffa340178",
        "vllm.lora.lora_weights:PackedLoRALayerWeights": "a848593e945bb0c6",
        "vllm.lora.peft_helper:PEFTHelper": "313a00d85e49136b",
    },
    "worker_seam.py": {
        # replaced by subclasses of ours
        "vllm.lora.worker_manager:WorkerLoRAManager": {"0.32": "78e1dfdf1b14f64b", "0.33": "ec4402d436466a93"},
        "vllm.lora.worker_manager:LRUCacheWorkerLoRAManager": "b46dd3eaaff82ef1",
        "vllm.lora.model_manager:LRUCacheLoRAModelManager": "eb94548687e59568",
        "vllm.lora.model_manager:LoRAModelManager.__init__": {"0.32": "5dcae742ef6f7217", "0.33": "9f4198aecfbb08ec"},
        "vllm.lora.model_manager:LoRAModelManager.activate_adapter": {
            "0.32": "0661f9e08a07fe15",
            "0.33": "b044458b878ef5d4",
        },
        "vllm.lora.model_manager:LoRAModelManager._deactivate_adapter": "c03307590919e288",
        "vllm.lora.model_manager:LoRAModelManager.remove_adapter": "bd550e65eefcae55",
        "vllm.lora.model_manager:LoRAModelManager.deactivate_adapter": "002a74a3ec062eb1",
        "vllm.lora.model_manager:LoRAModelManager.remove_all_adapters": "d1dcd6788c966f4a",
        "vllm.lora.model_manager:LoRAModelManager._add_adapter": "41669a3c69568621",
        "vllm.lora.model_manager:LoRAModelManager.set_adapter_mapping": "fc14134c10e98bb3",
        "vllm.lora.model_manager:AdapterLRUCache": "7e9dc1c59dcc5cea",
        "vllm.utils.cache:LRUCache": "89e111112f71d028",
        # what they copy into a slot, we copy in one call
        "vllm.lora.layers.base_linear:BaseLinearLayerWithLoRA": "bdf2b93e67a4cd7a",
        "vllm.lora.layers.column_parallel_linear:MergedColumnParallelLinearWithLoRA.set_lora": "111b25b22b35b4ac",
        "vllm.lora.layers.column_parallel_linear:MergedColumnParallelLinearWithLoRA.create_lora_weights": "5495fcfe4c518304",  # noqa: E501
        # who builds the manager, who uses it in a step, and how its batch is known
        "vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin": {
            "0.32": "518ded4105f79ddb",
            "0.33": "a710e101c6a419c5",
        },
        "vllm.v1.worker.gpu_input_batch:InputBatch.make_lora_inputs": "bd9f00169c9791d7",
        "vllm.v1.worker.gpu_input_batch:InputBatch.remove_request": "74776981e14d7610",
        "vllm.v1.worker.gpu.lora_utils:LoraState": "fdf0a8f3413ca407",
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.add_requests": "8321187d017efc99",
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.finish_requests": "d78030bf2a4431a7",
    },
    "worker/cpu_product.py": {
        # subclassed, and the choice of which is replaced
        "vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU": "acc9bc9cf24eb2db",
        "vllm.platforms.cpu:CpuPlatform.get_punica_wrapper": "61c5754d5d8319c7",
        "vllm.lora.punica_wrapper.punica_base:PunicaWrapperBase": "1f0a6ab456095efc",
        "vllm.lora.punica_wrapper.punica_selector:get_punica_wrapper": "73bf642d63b1513e",
        "vllm.lora.punica_wrapper.utils:convert_mapping": "f95d398f21afb453",
        "vllm.lora.ops.torch_ops.lora_ops": {"0.32": "33bc2aca729ebc37", "0.33": "f954dbddf4639ec8"},
        # who calls it, and with what
        "vllm.lora.model_manager:LoRAModelManager._set_adapter_mapping": "6ae4384167f2dee5",
        "vllm.lora.layers.base_linear:BaseLinearLayerWithLoRA._apply_lora_to_output": "57c8604ccec2e37f",
        "vllm.lora.layers.column_parallel_linear:_mcp_apply": "ee8b3cbbd410840e",
        "vllm.lora.layers.row_parallel_linear:RowParallelLinearWithShardedLoRA": "92f0b51dc06c38e3",
    },
}
NAMES = {name: ours for ours, names in READ.items() for name in names}


def installed_tree() -> Path:
    """Return the directory from which this interpreter would import vLLM, without importing it."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None, "vLLM is not installed"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]).parent


def minor_version(tree: Path) -> str:
    """Return the first two numbers of the version of the vLLM under `tree`."""
    found = re.search(r"^__version__ = .*'(\d+\.\d+)[^']*'", (tree / "vllm" / "_version.py").read_text(), re.MULTILINE)
    assert found, f"{tree} does not say which vLLM it is"
    return found[1]


def source(name: str, tree: Path) -> str:
    """Return the source of ``module:name``, or of a whole ``module``, under `tree`.

    Raises:
        LookupError: when there is no such thing.
    """
    module, _, qualified = name.partition(":")
    path = tree / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = path.with_suffix("") / "__init__.py"
    if not path.exists():
        raise LookupError(f"vLLM has no {module} any more")
    text = path.read_text()
    body: list[ast.stmt] = ast.parse(text).body
    lines = text.splitlines(keepends=True)
    for part in qualified.split(".") if qualified else ():
        found = [each for each in body if isinstance(each, _NAMED) and each.name == part]
        if not found:
            raise LookupError(f"vLLM has no {name} any more")
        node, body = found[-1], found[-1].body
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = text.splitlines(keepends=True)[first - 1 : node.end_lineno]
    return "".join(lines)


_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def digest(name: str, tree: Path) -> str:
    """Return what identifies the source of `name` under `tree`."""
    return hashlib.sha256(source(name, tree).encode()).hexdigest()[:16]


def known(name: str, version: str) -> str:
    """Return the digest of `name` in vLLM `version`, as it was when we read it.

    Raises:
        LookupError: when nobody read that version.
    """
    if version not in SUPPORTED:
        raise LookupError(f"vLLM {version} was never read: Lorry works with {' and '.join(SUPPORTED)}")
    digests = READ[NAMES[name]][name]
    return digests if isinstance(digests, str) else digests[version]


_KNOBS = {  # where they are written → what they look like there
    "vllm/envs.py": r'^    "([A-Z_0-9]+)": ',
    "vllm/engine/arg_utils.py": r'"(--[a-z0-9-]+)"',
}


def new_knobs(old: Path, new: Path) -> list[str]:
    """Return environment variables and engine arguments that only the newer of two trees has: none was judged yet."""
    found = [
        {knob for file, form in _KNOBS.items() for knob in re.findall(form, (tree / file).read_text(), re.MULTILINE)}
        for tree in (old, new)
    ]
    return sorted(found[1] - found[0])


def differences(old: Path, new: Path) -> Iterator[str]:
    """Yield, for a person to read, everything that we lean on and that differs between two trees."""
    if knobs := new_knobs(old, new):
        question = "does one of these log requests, open a door or let cached blocks out?"
        yield f"\n=== launch.py: {question} {', '.join(knobs)}\n"
    versions = minor_version(old), minor_version(new)
    for name, ours in NAMES.items():
        try:
            texts = [source(name, tree).splitlines(keepends=True) for tree in (old, new)]
        except LookupError as exc:
            yield f"\n=== {ours}: {exc}\n"
            continue
        if texts[0] != texts[1]:
            digests = {version: digest(name, tree) for version, tree in zip(versions, (old, new), strict=True)}
            yield f'\n=== {ours}: "{name}": {digests}\n'.replace("'", '"')
            old_text, new_text = texts
            yield from difflib.unified_diff(old_text, new_text, *versions, n=6)


if __name__ == "__main__":
    trees = [Path(argument) for argument in sys.argv[1:3]]
    text = "".join(differences(trees[1] if len(trees) > 1 else installed_tree(), trees[0]))
    print(text or "Nothing that Lorry leans on differs.", flush=True)
