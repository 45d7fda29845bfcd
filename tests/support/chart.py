"""Values that the chart is tried with, and what it makes of them."""

from __future__ import annotations

from typing import Any

from tests.support.helm import render

MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "signing": True,
        "signingPublicKey": "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n",
        "gateway": {
            "settings": {"LORRY_GATEWAY_EXTRACTIONS": 4},
            "ingress": {"enabled": True, "host": "lorry.example", "className": "nginx", "tlsSecret": "lorry-tls"},
        },
        "engines": {
            "autoscaling": {"enabled": True},
            "settings": {"LORRY_WARM_START": False},
            "cache": {"className": "local"},
        },
        "monitoring": {"serviceMonitors": True, "rules": True, "dashboards": True, "labels": {"release": "prometheus"}},
        "networkPolicies": {"gatewayFrom": [{"namespaceSelector": {}}], "trainingsFrom": [{"podSelector": {}}]},
        "trainers": {"writerKey": True},
        "extractors": {"webhookKey": True, "settings": {"LORRY_EXTRACTION_USERS_AT_ONCE": 8}},
        "image": {"registry": "registry.example/ours", "pullSecrets": [{"name": "pull"}]},
    },
    "bundled": {"bundled": {"postgres": {"enabled": True}, "objects": {"enabled": True}}},
    "one engine": {"envoy": {"enabled": False}, "engines": {"replicas": 1}, "extractors": {"replicas": 2}},
    "two bases": {
        "base": {"path": "llama-3.1-8b"},
        "trainers": {"path": "models/llama-next"},
        "signing": True,
        "signingPublicKey": "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n",
        "bundled": {"objects": {"enabled": True}},
        "engines": {"autoscaling": {"enabled": True}, "settings": {"LORRY_WARM_START": False}},
        "monitoring": {"serviceMonitors": True},
        "otherEngines": {
            "next": {
                "path": "models/llama-next",
                "replicas": 3,
                "gpus": 4,
                "settings": {"LORRY_MAX_NUM_SEQS": 8},
                "resources": {"limits": {"memory": "200Gi"}},
            },
            "leaving": {"path": "old", "base": "org/old", "routed": False},
        },
    },
    "two bases without Envoy": {
        "envoy": {"enabled": False},
        "engines": {"replicas": 1},
        "otherEngines": {"next": {"path": "next"}},
    },
    "no jobs": {"trainings": {"enabled": False}, "extractors": {"enabled": False}},
    "KMS and roles": {
        "masterKeyFile": False,
        "registry": {"settings": {"LORRY_KMS_KEY_ID": "alias/lorry"}},
        "s3": {"keys": False, "endpoint": "https://s3.example"},
        "serviceAccount": {
            "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/lorry"},
            "resultsAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/results"},
        },
        "networkPolicies": {"enabled": False},
    },
    "odd but legal": {
        "image": {"tag": "2026", "registry": "localhost:5000", "pullPolicy": "Always"},
        "secrets": "123",
        "base": {"claim": "0123", "path": "models/it's, #1: {new}"},
        "gateway": {
            "resources": {"limits": {"memory": None}},
            "ingress": {"enabled": True, "host": "1.2", "className": "on"},
        },
        "engines": {
            "startSeconds": 10,
            "drainSeconds": 0,
            "cache": {"size": "1000", "className": "1"},
            "resources": {"requests": {"cpu": 0.5, "memory": None}, "limits": {"memory": None}},
            "tolerations": [{"operator": "Exists"}],
        },
        "trainers": {"resources": {"requests": None, "limits": {"example.com/fast": 1, "memory": "64Gi"}}},
        "networkPolicies": {
            "gatewayFrom": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "metricsFrom": [],
        },
        "monitoring": {"serviceMonitors": True, "labels": {"release": "no"}},
        "serviceAccount": {"annotations": {"number": "1"}},
    },
}


def objects(name: str) -> list[dict[str, Any]]:
    """What the chart makes of a row of the matrix."""
    return render(MATRIX[name])


def of_kind(found: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    """The objects of these kinds, by name."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] in kinds}


def templates(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What pods are made of, by the name of what makes them."""
    workloads = of_kind(found, "Deployment", "StatefulSet", "Job", "CronJob")
    specs = {name: each["spec"].get("jobTemplate", each)["spec"] for name, each in workloads.items()}
    return {name: spec["template"] for name, spec in specs.items()}


def pods(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods' specifications, likewise."""
    return {name: each["spec"] for name, each in templates(found).items()}


def environment(pod: dict[str, Any]) -> dict[str, str]:
    """What a pod's container is told, and nothing for what comes out of a Secret."""
    return {each["name"]: each.get("value", "") for each in pod["containers"][0].get("env", [])}
