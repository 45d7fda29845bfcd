"""Every alert fires on what it is for and is silent on what it is not, as Prometheus' own tool computes it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import debians

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
ENGINE = 'instance="e:8100"'
_LOADS = "lorry_adapter_load_failures_total"
_REFUSALS = "lorry_adapter_refusals_total"
_BEATS = "lorry_engine_heartbeat_seconds_count"
_HEALTHY = 'envoy_cluster_membership_healthy{envoy_cluster_name="engines"}'
_TOTAL = 'envoy_cluster_membership_total{envoy_cluster_name="engines"}'
_WANTED = 'lorry:engines_wanted{envoy_cluster_name="engines"}'
_NEXT_HEALTHY, _NEXT_TOTAL = (name.replace('"engines"', '"engines-next"') for name in (_HEALTHY, _TOTAL))
_ENGINE_UP = "lorry_extraction_engine_up"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series under which an alert fires at some time, and series under which it does not.

    Values are promtool's: ``0+3x240`` begins at 0 and grows by 3 each minute. Rules are computed `every` so
    often: where days go by, each looks back at so many samples that every minute would take a minute.
    """

    fires: dict[str, str]
    silent: dict[str, str]
    at: str = "20m"
    every: str = "1m"
    labels: dict[str, str]
    value: str = ""


def _gateway(failures_each_minute: float, *, minutes: int = 6000) -> dict[str, str]:
    """1000 requests a minute, of which some fail; and what probes ask, which is nobody's."""
    return {
        'lorry_gateway_requests_total{route="/healthz",status="200"}': f"0+9000x{minutes}",
        'lorry_gateway_requests_total{route="/readyz",status="503"}': f"0+900x{minutes}",
        'lorry_gateway_requests_total{status="200"}': f"0+{1000 - failures_each_minute}x{minutes}",
        'lorry_gateway_requests_total{status="500"}': f"0+{failures_each_minute}x{minutes}",
    }


def _waits(slow_each_minute: float, *, minutes: int = 2000) -> dict[str, str]:
    """100 live requests a minute, of which some wait longer than a second."""
    return {
        'lorry_slot_wait_seconds_count{class="live"}': f"0+100x{minutes}",
        'lorry_slot_wait_seconds_bucket{class="live",le="1.0"}': f"0+{100 - slow_each_minute}x{minutes}",
    }


def _reason(metric: str, reason: str, values: str) -> dict[str, str]:
    return {f'{metric}{{{ENGINE},reason="{reason}"}}': values}


def _sums(loading: str, ended: str) -> dict[str, str]:
    return {
        f'lorry_adapter_requests_loading{{{ENGINE},class="live"}}': loading,
        f'lorry_adapter_loads_total{{{ENGINE},outcome="loaded"}}': ended,
    }


def _trainings(series: str, values: str, *, queued: int = 0, running: int = 0) -> dict[str, str]:
    counts = {"queued": queued, "starting": 0, "running": running}
    jobs = {f'lorry_training_jobs{{state="{state}"}}': f"{count}x60" for state, count in counts.items()}
    return {series: values, **jobs}


def _extractions(alive: str, *, batches: int) -> dict[str, str]:
    return {
        'lorry_extraction_workers{state="alive"}': alive,
        'lorry_extraction_batches{state="queued"}': f"{batches}x60",
        'lorry_extraction_batches{state="paused"}': "7x60",
    }


def _calls(**endings: str) -> dict[str, str]:
    name = "lorry_gateway_engine_calls_total"
    return {f'{name}{{engine="default",ending="{ending}"}}': values for ending, values in endings.items()}


def _users(**outcomes: str) -> dict[str, str]:
    return {f'lorry_extraction_users_total{{outcome="{name}"}}': values for name, values in outcomes.items()}


CASES: dict[str, Case] = {
    "LorryHeartbeatsFail": Case(
        fires={f'{_BEATS}{{{ENGINE},outcome="failed"}}': "0+30x60"},
        silent={
            f'{_BEATS}{{{ENGINE},outcome="failed"}}': "5x60",
            f'{_BEATS}{{{ENGINE},outcome="answered"}}': "0+30x60",
        },
        labels={"instance": "e:8100", "outcome": "failed"},
    ),
    "LorryLoadsHang": Case(
        fires=_sums("3x60", "7x60"),
        silent=_sums("3x60", "0+2x60"),
        labels={"instance": "e:8100"},
        value="3",
    ),
    "LorryLoadsFail": Case(
        fires=_reason(_LOADS, "store_unavailable", "0+2x60"),
        silent=_reason(_LOADS, "unknown_version", "0+2x60"),
        labels={"instance": "e:8100", "reason": "store_unavailable"},
    ),
    "LorryAdapterDamaged": Case(
        fires=_reason(_LOADS, "damaged", "0x15 1x45"),
        silent=_reason(_LOADS, "store_unavailable", "0+1x60"),
        labels={"instance": "e:8100", "reason": "damaged"},
    ),
    "LorryQueueFull": Case(
        fires=_reason(_REFUSALS, "busy", "0+2x60"),
        silent=_reason(_REFUSALS, "busy", "0x5 9x55"),
        labels={"instance": "e:8100"},
    ),
    "LorryDeadlinesPass": Case(
        fires=_reason(_REFUSALS, "deadline", "0+2x60"),
        silent=_reason(_REFUSALS, "suspended", "0+2x60"),
        labels={"instance": "e:8100"},
    ),
    "LorryHostMemoryFull": Case(
        fires=_reason(_REFUSALS, "no_room", "0+2x60"),
        silent=_reason(_REFUSALS, "busy", "0+2x60"),
        labels={"instance": "e:8100"},
    ),
    "LorryAdapterLostInStep": Case(
        fires={f'lorry_adapter_evictions_total{{{ENGINE},tier="host",reason="lost"}}': "0x15 1x45"},
        silent={f'lorry_adapter_evictions_total{{{ENGINE},tier="disk",reason="lost"}}': "0x15 1x45"},
        labels={"instance": "e:8100"},
    ),
    "LorryLoadsStallEngine": Case(
        fires={f"lorry_engine_stall_seconds_sum{{{ENGINE}}}": "0+12x60"},
        silent={f"lorry_engine_stall_seconds_sum{{{ENGINE}}}": "0+3x60"},
        labels={"instance": "e:8100"},
        value="20%",
    ),
    "LorryEnginesUnmeasured": Case(
        fires={'lorry_registry_engines{state="alive"}': "1x60"},
        silent={f"lorry_engine_in_touch{{{ENGINE}}}": "0x60"},
        labels={},
    ),
    "LorryRegistryGone": Case(
        fires={f"lorry_engine_in_touch{{{ENGINE}}}": "1x60"},
        silent={'lorry_registry_database_up{instance="a"}': "0x60"},
        labels={},
    ),
    "LorryEngineLapsed": Case(
        fires={'lorry_registry_engines{state="lapsed"}': "2x60", 'lorry_registry_engines{state="alive"}': "1x60"},
        silent={'lorry_registry_engines{state="lapsed"}': "0x60", 'lorry_registry_engines{state="left"}': "3x60"},
        labels={},
        value="2",
    ),
    "LorryEngineOutOfTouch": Case(
        fires={f"lorry_engine_in_touch{{{ENGINE}}}": "0x60"},
        silent={f"lorry_engine_in_touch{{{ENGINE}}}": "1x60"},
        labels={"instance": "e:8100"},
    ),
    "LorryRegistryWithoutDatabase": Case(
        fires={'lorry_registry_database_up{instance="a"}': "1x60", 'lorry_registry_database_up{instance="b"}': "0x60"},
        silent={'lorry_registry_database_up{instance="a"}': "1x60"},
        labels={},
    ),
    "LorryRegistryErrors": Case(
        fires={
            'lorry_registry_requests_total{status="200"}': "0+98x60",
            'lorry_registry_requests_total{status="503"}': "0+2x60",
        },
        silent={
            'lorry_registry_requests_total{status="200"}': "0+98x60",
            'lorry_registry_requests_total{status="404"}': "0+9x60",
            'lorry_registry_requests_total{route="/readyz",status="503"}': "0+90x60",
        },
        labels={},
        value="2%",
    ),
    "LorryBackgroundBreaks": Case(
        fires={'lorry_background_failures_total{kind="broken",work="engine"}': "0x5 1x60"},
        silent={
            'lorry_background_failures_total{kind="broken",work="engine"}': "7x60",
            'lorry_background_failures_total{kind="refused",work="engine"}': "0+5x60",
        },
        labels={"work": "engine"},
        at="10m",
    ),
    "LorryGatewayGone": Case(
        fires={'lorry_registry_requests_total{status="200"}': "0+1x60"},
        silent={'lorry_gateway_requests_total{status="200"}': "0x60"},
        labels={},
    ),
    "LorryBaseWithoutEngine": Case(
        fires=_calls(answered="0+9x60", other_base="0+1x60"),
        silent=_calls(answered="0+9x60", refused="0+9x60", failed="0+9x60", other_base="7x60"),
        labels={"engine": "default"},
    ),
    "LorryErasureUnattended": Case(
        fires={'lorry_erasure_unattended_seconds{instance="a"}': "0+60x60"},
        silent={'lorry_erasure_unattended_seconds{instance="a"}': "5x60"},
        labels={},
        value="20m 0s",
    ),
    "LorryErasureWaits": Case(
        fires={"lorry_erasure_oldest_seconds": "270000+60x120"},
        silent={"lorry_erasure_oldest_seconds": "200000+60x120"},
        at="90m",
        labels={},
        value="3d 4h 30m 0s",
    ),
    "LorryNoEngineReady": Case(
        fires={_HEALTHY: "0x60", _TOTAL: "2x60"},
        silent={_HEALTHY: "1x60", _TOTAL: "2x60"},
        labels={"envoy_cluster_name": "engines"},
    ),
    "LorryEnginesMissing": Case(
        # Of the other base one engine is to be, and is; the default one's second pod has no node, and so no address.
        fires={_HEALTHY: "1x60", _TOTAL: "1x60", _WANTED: "2x60", _NEXT_HEALTHY: "1x60", _NEXT_TOTAL: "1x60"},
        silent={_HEALTHY: "2x8 1x5 2x60", _TOTAL: "2x60", _NEXT_HEALTHY: "1x60", _NEXT_TOTAL: "1x60"},
        at="30m",
        labels={"envoy_cluster_name": "engines"},
        value="1",
    ),
    "LorryEnvoyUnmeasured": Case(
        fires={_WANTED: "2x60", _NEXT_TOTAL: "1x60"},
        silent={_WANTED: "2x60", _TOTAL: "1x60", _NEXT_TOTAL: "1x60"},
        labels={"envoy_cluster_name": "engines"},
    ),
    "LorryGatewayFailsFast": Case(
        fires=_gateway(20, minutes=200), silent=_gateway(10, minutes=200), at="2h", labels={}, value="2%"
    ),
    "LorryGatewayFails": Case(
        fires=_gateway(8, minutes=900), silent=_gateway(5, minutes=900), at="10h", every="10m", labels={}, value="0.8%"
    ),
    "LorryGatewayFailsSlowly": Case(
        fires=_gateway(2), silent=_gateway(0.5), at="80h", every="1h", labels={}, value="0.2%"
    ),
    "LorryLiveWaitsLong": Case(
        fires=_waits(20, minutes=200), silent=_waits(10, minutes=200), at="2h", labels={}, value="20%"
    ),
    "LorryLiveWaitsLongSlowly": Case(fires=_waits(5), silent=_waits(2), at="30h", every="30m", labels={}, value="5%"),
    "LorryTrainingUnwatched": Case(
        fires={"lorry_extraction_database_up": "1x60"},
        silent={'lorry_training_workers{state="alive"}': "0x60"},
        labels={},
    ),
    "LorryTrainingQueueStuck": Case(
        fires=_trainings("lorry_training_oldest_waiting_seconds", "1000+60x60", running=0),
        silent=_trainings("lorry_training_oldest_waiting_seconds", "1000+60x60", running=1),
        labels={},
        value="36m 40s",
    ),
    "LorryTrainingWithoutWorker": Case(
        fires=_trainings('lorry_training_workers{state="alive"}', "0x60", queued=3),
        silent=_trainings('lorry_training_workers{state="alive"}', "0x60", queued=0),
        labels={},
    ),
    "LorryTrainingFailuresRise": Case(
        fires={'lorry_training_recent_failures{reason="disk-full"}': "_x90 4x60"},
        silent={'lorry_training_recent_failures{reason="dataset-too-small"}': "3x150"},
        at="110m",
        labels={"reason": "disk-full"},
        value="4",
    ),
    "LorryTrainingSpendNearQuota": Case(
        fires={"lorry_training_spent_share": "0.9x60"},
        silent={"lorry_training_spent_share": "0.5x60"},
        labels={},
        value="90%",
    ),
    "LorryTrainingPoisonUsers": Case(
        fires={"lorry_training_poison_users": "1x60"},
        silent={"lorry_training_poison_users": "0x60"},
        labels={},
        value="1",
    ),
    "LorryTrainingCampaignStalled": Case(
        fires={"lorry_training_stalled_campaigns": "2x60"},
        silent={"lorry_training_stalled_campaigns": "2x10 0x5 2x45"},
        labels={},
        value="2",
    ),
    "LorryTrainingWithoutDatabase": Case(
        fires={'lorry_training_database_up{instance="a"}': "1x60", 'lorry_training_database_up{instance="b"}': "0x60"},
        silent={'lorry_training_database_up{instance="a"}': "1x60"},
        labels={},
    ),
    "LorryExtractionNoWorker": Case(
        fires=_extractions("0x60", batches=3),
        silent=_extractions("1x60", batches=3),
        labels={},
        value="3",
    ),
    "LorryExtractionUnwatched": Case(
        fires={'lorry_training_workers{state="alive"}': "1x60"},
        silent=_extractions("0x60", batches=0),
        labels={},
    ),
    "LorryExtractionStuck": Case(
        fires={"lorry_extraction_stuck_seconds": "0+60x60"},
        silent={"lorry_extraction_stuck_seconds": "1700x60"},
        at="40m",
        labels={},
        value="40m 0s",
    ),
    "LorryExtractionEngineAway": Case(
        fires={f'{_ENGINE_UP}{{engine="default"}}': "1x60", f'{_ENGINE_UP}{{engine="other"}}': "0x60"},
        silent={f'{_ENGINE_UP}{{engine="default"}}': "1x19 0x1 1x40"},
        labels={},
    ),
    "LorryExtractionUsersFail": Case(
        fires=_users(done="0+8x60", failed="0+2x60"),
        silent=_users(done="0+95x60", failed="0+5x60", again="0+90x60"),
        labels={},
        value="20%",
    ),
    "LorryExtractionTriesAgain": Case(
        fires=_users(done="0+1x60", again="0+3x60"),
        silent=_users(done="0+2x60", again="0+3x60"),
        at="30m",
        labels={},
    ),
    "LorryExtractionWebhooksGivenUp": Case(
        fires={'lorry_extraction_webhooks_total{outcome="given_up"}': "0x70 1x60"},
        silent={'lorry_extraction_webhooks_total{outcome="again"}': "0x70 1x60"},
        at="90m",
        labels={},
        value="1",
    ),
    "LorryExtractionWithoutDatabase": Case(
        fires={
            'lorry_extraction_database_up{instance="a"}': "1x60",
            'lorry_extraction_database_up{instance="b"}': "0x60",
        },
        silent={'lorry_extraction_database_up{instance="a"}': "1x60"},
        labels={},
    ),
}


def rules() -> dict[str, dict[str, Any]]:
    return {
        rule["alert"]: rule
        for path in files()
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.rules.yml"))


def said(text: str, case: Case) -> str:
    """An annotation as Prometheus renders it."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: case.labels[found[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", case.value, text)


@pytest.fixture(scope="module")
def promtool() -> str:
    return debians("promtool")


def test_every_rule_file_is_sound(promtool: str) -> None:
    ended = subprocess.run([promtool, "check", "rules", *files()], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == set(rules())


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_on_what_it_is_for_and_on_nothing_else(name: str, promtool: str, tmp_path: Path) -> None:
    case, rule = CASES[name], rules()[name]
    alert = {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": {key: said(text, case) for key, text in rule["annotations"].items()},
    }
    groups = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "alert_rule_test": [{"eval_time": case.at, "alertname": name, "exp_alerts": expected}],
        }
        for given, expected in ((case.fires, [alert]), (case.silent, []))
    ]
    document = {
        "rule_files": [str(path) for path in files()],
        "evaluation_interval": case.every,
        "group_eval_order": ["lorry-objectives", "lorry-burn-rates"],  # else by chance; samples are forgotten after 5 m
        "tests": groups,
    }
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump(document, width=10_000))
    ended = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
