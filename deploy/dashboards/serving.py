"""Adapters and engines: how long loads take, where adapters are found, who waits, and for what."""

from __future__ import annotations

from deploy.dashboards.panels import Page, Panel, Query, Row, ratio

_WHOLE = 'stage=~"resolve|download|open|engine_load"'
_INSIDE = 'stage=~"queue|read|prepare"'


def _quantile(share: float, metric: str, matchers: str = "", *, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    selector = f"{{{matchers}}}" if matchers else ""
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{selector}[5m])))"


def _loads(source: str) -> Panel:
    where = {"registry": "the registry and the object store", "disk": "the engine's own disk"}[source]
    return Panel(
        title=f"Load from {source}, p95 by stage",
        says=f"How long each stage took for adapters that came from {where}.",
        queries=(
            Query(
                expr=_quantile(0.95, "lorry_adapter_load_seconds", f'source="{source}",{_WHOLE}', by="stage"),
                legend="{{stage}}",
            ),
        ),
        unit="s",
    )


PAGE = Page(
    uid="lorry-serving",
    title="Lorry: adapters and engines",
    says="How long loads take, where adapters are found, who waits, for what. docs/engine.md explains the measures.",
    rows=(
        Row(
            title="Loads",
            panels=(
                _loads("registry"),
                _loads("disk"),
                Panel(
                    title="Inside engine_load, p95",
                    says="Of the way into the workers' memory: waiting for its turn, reading, preparing.",
                    queries=(
                        Query(
                            expr=_quantile(0.95, "lorry_adapter_load_seconds", _INSIDE, by="stage"), legend="{{stage}}"
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Loads by outcome",
                    says="Whole loads that ended, a second.",
                    queries=(
                        Query(expr="sum by (outcome) (rate(lorry_adapter_loads_total[5m]))", legend="{{outcome}}"),
                        Query(expr="sum(lorry_adapter_loads_under_way)", legend="under way now"),
                    ),
                ),
                Panel(
                    title="Failed loads by reason",
                    says="In the last quarter of an hour. docs/engine.md says of every reason what to do.",
                    queries=(
                        Query(
                            expr="sum by (reason) (increase(lorry_adapter_load_failures_total[15m])) > 0",
                            legend="{{reason}}",
                            may_be_empty="no load failed",
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Requests that wait for a load",
                    says="Now, by class. Many of them and no loads that end: the object store or the registry hangs.",
                    queries=(Query(expr="sum by (class) (lorry_adapter_requests_loading)", legend="{{class}}"),),
                ),
            ),
        ),
        Row(
            title="Where adapters are found",
            panels=(
                Panel(
                    title="Requests by the fastest tier that had the adapter",
                    says="Slot and host cost nothing; disk and registry cost a load.",
                    queries=(
                        Query(
                            expr=(
                                "sum by (tier) (rate(lorry_adapter_requests_total[5m]))"
                                " / scalar(clamp_min(sum(rate(lorry_adapter_requests_total[5m])), 1e-9))"
                            ),
                            legend="{{tier}}",
                        ),
                    ),
                    unit="percentunit",
                    kind="stacked",
                ),
                Panel(
                    title="Found in memory",
                    says="Share of requests whose adapter was in a slot or in host memory.",
                    queries=(
                        Query(
                            expr=ratio(
                                'sum(rate(lorry_adapter_requests_total{tier=~"slot|host"}[15m]))',
                                "sum(rate(lorry_adapter_requests_total[15m]))",
                            )
                        ),
                    ),
                    unit="percentunit",
                    kind="number",
                ),
                Panel(
                    title="Evictions by tier and reason",
                    says="Room in slots: adapters take turns. Room in host memory: more users than it holds.",
                    queries=(
                        Query(
                            expr="sum by (tier, reason) (rate(lorry_adapter_evictions_total[5m])) > 0",
                            legend="{{tier}}: {{reason}}",
                            may_be_empty="nothing was evicted",
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Adapters held, of what may be",
                    says="Slots and host memory, by number.",
                    queries=(
                        Query(
                            expr="max by (tier, instance) (lorry_adapters / lorry_adapters_max)",
                            legend="{{instance}} {{tier}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="Bytes held, of what may be",
                    says="Host memory and disk. A full disk is as it should be: the least used makes room.",
                    queries=(
                        Query(
                            expr="max by (tier, instance) (lorry_adapter_bytes / lorry_adapter_bytes_max)",
                            legend="{{instance}} {{tier}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="Pinned adapters",
                    says="What is pinned is not evicted, and takes room from everybody else.",
                    queries=(Query(expr="sum by (instance) (lorry_adapters_pinned)", legend="{{instance}}"),),
                ),
            ),
        ),
        Row(
            title="Slots",
            panels=(
                Panel(
                    title="Slots in use",
                    says="Distinct adapters in slots, of the slots that there are.",
                    queries=(
                        Query(
                            expr='max by (instance) (lorry_adapters{tier="slot"} / lorry_adapters_max{tier="slot"})',
                            legend="{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="Wait for room, a slot and seats",
                    says="Of admitted requests; loading is not in it.",
                    queries=(
                        Query(expr=_quantile(0.5, "lorry_slot_wait_seconds", by="class"), legend="p50 {{class}}"),
                        Query(expr=_quantile(0.99, "lorry_slot_wait_seconds", by="class"), legend="p99 {{class}}"),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Engine's time spent on copying into slots",
                    says="Above a tenth, more adapters take turns than there are slots.",
                    queries=(
                        Query(
                            expr="sum by (instance) (rate(lorry_engine_stall_seconds_sum[5m]))", legend="{{instance}}"
                        ),
                    ),
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            title="Live and batch",
            panels=(
                Panel(
                    title="Admitted requests",
                    says="A second, by class.",
                    queries=(
                        Query(expr="sum by (class) (rate(lorry_adapter_requests_total[5m]))", legend="{{class}}"),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Running requests",
                    says="Admitted and not finished by the engine, by class.",
                    queries=(Query(expr="sum by (class) (lorry_adapter_leases)", legend="{{class}}"),),
                    kind="stacked",
                ),
                Panel(
                    title="Queue",
                    says="Who waits for others' arrivals, room, a slot or seats, by class.",
                    queries=(Query(expr="sum by (class) (lorry_queue_depth)", legend="{{class}}"),),
                    kind="stacked",
                ),
                Panel(
                    title="Refusals by reason",
                    says="In the last quarter of an hour.",
                    queries=(
                        Query(
                            expr="sum by (reason) (increase(lorry_adapter_refusals_total[15m])) > 0",
                            legend="{{reason}}",
                            may_be_empty="nobody was refused",
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Ended while they ran",
                    says="Because their adapter had to leave: suspended, erased, out of touch.",
                    queries=(
                        Query(
                            expr="sum by (reason) (increase(lorry_adapter_requests_ended_total[15m])) > 0",
                            legend="{{reason}}",
                            may_be_empty="nobody was ended",
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Tokens",
                    says="Computed a second, as vLLM counts them.",
                    queries=(
                        Query(expr="sum(rate(vllm:prompt_tokens_total[5m]))", legend="prompts"),
                        Query(expr="sum(rate(vllm:generation_tokens_total[5m]))", legend="answers"),
                    ),
                ),
            ),
        ),
        Row(
            title="Engines",
            panels=(
                Panel(
                    title="In touch with the registry",
                    says="1 = serves adapters. 0 = refuses every adapter.",
                    queries=(Query(expr="min by (instance) (lorry_engine_in_touch)", legend="{{instance}}"),),
                ),
                Panel(
                    title="Heartbeats, p95",
                    says="A suspension or an erasure takes a heartbeat and one of these to reach an engine.",
                    queries=(
                        Query(
                            expr=_quantile(0.95, "lorry_engine_heartbeat_seconds", by="instance"), legend="{{instance}}"
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Requests inside, by engine",
                    says="Of any model. Far apart: one adapter is hotter than Envoy's bound lets one engine be.",
                    queries=(Query(expr="sum by (instance) (lorry_requests_inside)", legend="{{instance}}"),),
                ),
                Panel(
                    title="Engines that Envoy sends requests to",
                    says="As its own health checks see them; those of another base are engines-NAME.",
                    queries=(
                        Query(
                            expr=(
                                "min by (envoy_cluster_name)"
                                ' (envoy_cluster_membership_healthy{envoy_cluster_name=~"engines.*"})'
                            ),
                            legend="{{envoy_cluster_name}}: healthy",
                            may_be_empty="one engine needs no Envoy",
                        ),
                        Query(
                            expr=(
                                "max by (envoy_cluster_name)"
                                ' (envoy_cluster_membership_total{envoy_cluster_name=~"engines.*"})'
                            ),
                            legend="{{envoy_cluster_name}}: all",
                            may_be_empty="one engine needs no Envoy",
                        ),
                    ),
                ),
                Panel(
                    title="Asked again at another engine",
                    says="Requests that one engine refused or could not be reached for, a second.",
                    queries=(
                        Query(
                            expr='sum(rate(envoy_cluster_upstream_rq_retry{envoy_cluster_name=~"engines.*"}[5m]))',
                            legend="asked again",
                            may_be_empty="one engine needs no Envoy",
                        ),
                    ),
                ),
                Panel(
                    title="Share of the KV cache in use",
                    says="Full: vLLM puts requests back, and tokens are computed twice.",
                    queries=(Query(expr="max by (instance) (vllm:kv_cache_usage_perc)", legend="{{instance}}"),),
                    unit="percentunit",
                ),
            ),
        ),
    ),
)
