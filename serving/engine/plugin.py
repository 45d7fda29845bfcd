"""The entry point of ``vllm.general_plugins``: runs in the API server, the engine core and every worker."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from serving.engine.settings import process_settings
from serving.engine.vllm_version import check_vllm, installed_versions

_log = logging.getLogger(__name__)


def register() -> None:
    """Register our resolver, worker parts, pace and, on a CPU, LoRA product; calling it again changes nothing.

    vLLM loads every installed plugin unless it is told otherwise. In a process that `serving.engine` did not
    start there are no settings: then nothing is touched.

    Raises:
        EngineMisconfigured: in a vLLM that our parts were not made for.
    """
    try:
        settings = process_settings()
    except ValidationError:
        _log.debug("not started by serving.engine: the Lorry plugin stays out of the way")
        return
    check_vllm(installed_versions(), untested=settings.untested_vllm)
    from vllm.lora.resolver import LoRAResolverRegistry
    from vllm.platforms import current_platform

    from serving.engine import scheduler_seam, worker_seam
    from serving.engine.pace import Pace
    from serving.engine.resolver import RESOLVER_NAME, RegistryResolver

    if RESOLVER_NAME not in LoRAResolverRegistry.get_supported_resolvers():
        LoRAResolverRegistry.register_resolver(RESOLVER_NAME, RegistryResolver())
    worker_seam.install()
    scheduler_seam.install(Pace(batch_prompt_tokens=settings.batch_prompt_tokens))
    if current_platform.is_cpu():
        from serving.engine.worker.cpu_product import use_product

        use_product(settings.cpu_product)

        from serving.engine.worker.doze import doze_between_steps

        doze_between_steps()

        from serving.engine.worker.seeds import make_seeds_rewindable

        make_seeds_rewindable()
