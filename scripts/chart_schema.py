"""Write helm/lorry/values.schema.json from values.yaml and the settings classes: run it after changing either.

Every name that is not in values.yaml is refused, and so is every setting that a process does not have, that the chart
sets itself, or that is a secret: those are given by reference.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from kit.settings import Settings, variable
from lorry.erasure.settings import ErasureSettings
from registry.settings import RegistrySettings
from serving.engine.settings import EngineSettings
from serving.gateway.settings import GatewaySettings
from serving.jobs.settings import ExtractionWorkerSettings
from training.jobs.settings import TrainingServiceSettings, WorkerSettings
from training.writers.settings import WriterSettings

CHART = Path(__file__).resolve().parents[1] / "helm" / "lorry"
SETTINGS: dict[str, tuple[type[Settings], ...]] = {
    "gateway": (GatewaySettings,),
    "registry": (RegistrySettings,),
    "engines": (EngineSettings,),
    "extractors": (ExtractionWorkerSettings,),
    "conductor": (ErasureSettings, WriterSettings),
    "trainings": (TrainingServiceSettings,),
    "trainers": (WorkerSettings, WriterSettings),
}
_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    """Allow an object of these properties and no others."""
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": list(required)} if required else found


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_SELECTOR = _object(
    matchLabels=_TEXTS,
    matchExpressions=_list(
        _object(
            "key",
            "operator",
            key=_TEXT,
            operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            values=_list(_TEXT),
        )
    ),
)
_PEERS = _list(
    {
        **_object(
            podSelector=_SELECTOR,
            namespaceSelector=_SELECTOR,
            ipBlock=_object("cidr", cidr=_TEXT, **{"except": _list(_TEXT)}),
        ),
        "minProperties": 1,
    }
)
_AMOUNTS = {
    "type": "object",
    # Engines and trainers get their GPUs by `gpus`, which vLLM has to be told of, too.
    "propertyNames": {
        "pattern": r"^(cpu|memory|ephemeral-storage|hugepages-\w+|[a-z0-9.-]+/[\w.-]+)$",
        "not": {"const": "nvidia.com/gpu"},
    },
    "additionalProperties": {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGTP]|[KMGTP]i)?$"},
}
FREE: dict[str, dict[str, Any]] = {
    "nodeSelector": _TEXTS,
    "annotations": _TEXTS,
    "resultsAnnotations": _TEXTS,
    "labels": _TEXTS,
    "tolerations": _list(
        _object(
            key=_TEXT,
            operator={"enum": ["Exists", "Equal"]},
            value=_TEXT,
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            tolerationSeconds={"type": "integer"},
        )
    ),
    "pullSecrets": _list(_object("name", name=_TEXT)),
    "gatewayFrom": _PEERS,
    "registryFrom": _PEERS,
    "trainingsFrom": _PEERS,
    "metricsFrom": _PEERS,
    "resources": _object(requests=_AMOUNTS, limits=_AMOUNTS),
}
"""Values whose insides are Kubernetes' own."""
_SIZE = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(k|[MGTP]|[KMGTP]i)?$"}
SPECIAL: dict[str, dict[str, Any]] = {
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "maxLoraRank": {"enum": [1, 8, 16, 32, 64, 128, 256, 320, 512]},
    "drainSeconds": {"type": "integer", "minimum": 0, "maximum": 600},
    "startSeconds": {"type": "integer", "minimum": 10},
    "maxLoras": {"type": "integer", "minimum": 1},
    "maxCpuLoras": {"type": "integer", "minimum": 1},
    "maxReplicas": {"type": "integer", "minimum": 1},
    "queueDepth": {"type": "integer", "minimum": 1},
    "slotWaitSeconds": {"type": "number", "exclusiveMinimum": 0},
    "size": _SIZE,
    "shm": _SIZE,
    "digests": _object(
        **{name: {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"} for name in ("service", "trainer", "engine")}
    ),
    "tag": {"type": "string", "not": {"const": "latest"}},
    "endpoint": {"type": "string", "pattern": "^(https?://.+)?$"},
    "path": {"type": "string", "pattern": "^([^/].*)?$"},
    "interval": {"type": "string", "pattern": "^([1-9]|[1-5][0-9]|60)s$"},
    "runbooks": {"type": "string", "pattern": "^(https?://.+/)?$"},
    "replicas": {"type": "integer", "minimum": 1},
    "gpus": {"type": "integer", "minimum": 1},
    "secrets": {"type": "string", "minLength": 1},
    "claim": {"type": "string", "minLength": 1},
}


def schema() -> dict[str, Any]:
    """Return the schema of the chart's values."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    root = _of(values, part="")
    root["properties"]["otherEngines"] = _pools(root["properties"]["engines"])
    root["properties"]["global"] = {"type": "object"}  # Helm hands it to every chart
    return {"$schema": "https://json-schema.org/draft-07/schema#", **root}


def _of(value: Any, *, part: str, name: str = "") -> dict[str, Any]:
    if name == "settings":
        return _settings(part)
    if name in FREE or name in SPECIAL:
        return FREE.get(name) or SPECIAL[name]
    if isinstance(value, dict):
        properties = {key: _of(each, part=part or key, name=key) for key, each in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    kinds = {bool: "boolean", int: "integer", str: "string"}
    kind = kinds[type(value)]
    return {"type": kind, "minimum": 0} if kind == "integer" else {"type": kind}


def _pools(engines: dict[str, Any]) -> dict[str, Any]:
    """Allow any number of pools, each with what `engines` may say but for what registries and KEDA go by."""
    own = {name: each for name, each in engines["properties"].items() if name not in {"maxLoraRank", "autoscaling"}}
    own |= {
        "path": {"type": "string", "pattern": "^[^/].*$"},
        "base": {"type": "string"},
        "routed": {"type": "boolean"},
    }
    pool = {"type": "object", "required": ["path"], "additionalProperties": False, "properties": own}
    return {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]([a-z0-9-]{0,14}[a-z0-9])?$"},
        "additionalProperties": pool,
    }


def _settings(part: str) -> dict[str, Any]:
    """Allow a process's settings but for those that its template sets, and secrets."""
    templates = (CHART / "templates" / name for name in (f"{part}.yaml", "_helpers.tpl"))
    taken = set(re.findall(r"\bLORRY_[A-Z0-9_]+", "".join(path.read_text() for path in templates)))
    allowed = {
        variable(name)
        for settings in SETTINGS[part]
        for name, field in settings.model_fields.items()
        if SecretStr not in (field.annotation, *getattr(field.annotation, "__args__", ()))
        and not name.endswith(("database_url", "_host", "_port", "registry_url", "cache_directory", "engine_device"))
    }
    return {
        "type": "object",
        "propertyNames": {"enum": sorted(allowed - taken)},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    }


def main() -> None:
    """Write the file."""
    (CHART / "values.schema.json").write_text(json.dumps(schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
