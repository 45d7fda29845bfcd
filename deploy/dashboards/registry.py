"""The registry: does it answer, which engines does it hear, what does it hold."""

from __future__ import annotations

from deploy.dashboards.panels import Page, Panel, Query, Row, ratio

PAGE = Page(
    uid="lorry-registry",
    title="Lorry: registry",
    says="Does it answer, which engines does it hear, what does it hold. docs/registry-api.md lists its routes.",
    rows=(
        Row(
            title="Requests",
            panels=(
                Panel(
                    title="Requests by status",
                    says="A second.",
                    queries=(
                        Query(expr="sum by (status) (rate(lorry_registry_requests_total[5m]))", legend="{{status}}"),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Duration, p99 of the busiest routes",
                    says="Resolving is what every request of every gateway waits for.",
                    queries=(
                        Query(
                            expr=(
                                "topk(8, histogram_quantile(0.99, sum by (le, route)"
                                " (rate(lorry_registry_request_seconds_bucket[5m]))))"
                            ),
                            legend="{{route}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Failing requests",
                    says="Share of answers from 500 on.",
                    queries=(
                        Query(
                            expr=ratio(
                                'sum(rate(lorry_registry_requests_total{status=~"5.."}[5m])) or vector(0)',
                                "sum(rate(lorry_registry_requests_total[5m]))",
                            )
                        ),
                    ),
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            title="What it knows",
            panels=(
                Panel(
                    title="Engines in the directory",
                    says="Lapsed ones have fallen silent and serve no adapter.",
                    queries=(Query(expr="max by (state) (lorry_registry_engines)", legend="{{state}}"),),
                    kind="stacked",
                ),
                Panel(
                    title="Versions by state",
                    says="From the database's statistics when there are many.",
                    queries=(Query(expr="max by (state) (lorry_registry_versions)", legend="{{state}}"),),
                    kind="number",
                ),
                Panel(
                    title="Erasures that have not ended",
                    says="Of every tenant, as gateways count them.",
                    queries=(Query(expr="max(lorry_erasures_running)"),),
                    kind="number",
                ),
                Panel(
                    title="Longest that nobody looked at one",
                    says="A conductor does every few seconds.",
                    queries=(Query(expr="max(lorry_erasure_unattended_seconds)"),),
                    unit="s",
                ),
                Panel(
                    title="Database",
                    says="1 = PostgreSQL answered the last scrape of every registry.",
                    queries=(Query(expr="min by (instance) (lorry_registry_database_up)", legend="{{instance}}"),),
                ),
            ),
        ),
    ),
)
