"""Batch extraction: what is queued, how fast users come to an end, what workers wait for, whether results are told."""

from __future__ import annotations

from deploy.dashboards.panels import Page, Panel, Query, Row

PAGE = Page(
    uid="lorry-extraction",
    title="Lorry: batch extraction",
    says="What is queued, how fast users come to an end, what workers wait for. docs/extractions.md explains batches.",
    rows=(
        Row(
            title="Batches",
            panels=(
                Panel(
                    title="Unfinished",
                    says="Queued, running, paused by a person.",
                    queries=(Query(expr="max by (state) (lorry_extraction_batches)", legend="{{state}}"),),
                    kind="stacked",
                ),
                Panel(
                    title="Longest without an end",
                    says="How long nobody came to an end in the running batch of which that is longest true.",
                    queries=(Query(expr="max(lorry_extraction_stuck_seconds)"),),
                    unit="s",
                    kind="number",
                    alarm_at=1800,
                ),
                Panel(
                    title="Webhooks",
                    says="Tries a second, and how many messages nobody has taken yet.",
                    queries=(
                        Query(
                            expr="sum by (outcome) (rate(lorry_extraction_webhooks_total[5m]))", legend="{{outcome}}"
                        ),
                        Query(expr="max(lorry_extraction_webhooks_pending)", legend="not delivered yet"),
                    ),
                ),
            ),
        ),
        Row(
            title="Users",
            panels=(
                Panel(
                    title="Users by outcome",
                    says="A minute. Waits: a part is away. Again: the engine refuses. Neither uses up a user.",
                    queries=(
                        Query(
                            expr="60 * sum by (outcome) (rate(lorry_extraction_users_total[5m]))", legend="{{outcome}}"
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Duration, p95 by stage",
                    says="Resolve: the registry. Ask: the engine and the evidence. Keep: the object store.",
                    queries=(
                        Query(
                            expr=(
                                "histogram_quantile(0.95, sum by (le, stage)"
                                " (rate(lorry_extraction_user_seconds_bucket[15m])))"
                            ),
                            legend="{{stage}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="In hand",
                    says="Of each worker; at most LORRY_EXTRACTION_USERS_AT_ONCE.",
                    queries=(Query(expr="sum by (instance) (lorry_extraction_users_in_hand)", legend="{{instance}}"),),
                    kind="stacked",
                ),
            ),
        ),
        Row(
            title="Workers",
            panels=(
                Panel(
                    title="Workers",
                    says="Of lapsed ones, others adopt the users.",
                    queries=(Query(expr="max by (state) (lorry_extraction_workers)", legend="{{state}}"),),
                    kind="stacked",
                ),
                Panel(
                    title="Engines",
                    says="1 = it answered when the worker last looked; until it does, nobody is asked who needs it.",
                    queries=(
                        Query(
                            expr="min by (instance, engine) (lorry_extraction_engine_up)",
                            legend="{{instance}}: {{engine}}",
                        ),
                    ),
                ),
                Panel(
                    title="Database",
                    says="1 = PostgreSQL answered the last scrape of every worker.",
                    queries=(Query(expr="min by (instance) (lorry_extraction_database_up)", legend="{{instance}}"),),
                ),
            ),
        ),
    ),
)
