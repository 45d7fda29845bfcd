"""Trainings: what waits, what runs, how it ended, what it costs."""

from __future__ import annotations

from deploy.dashboards.panels import Page, Panel, Query, Row

_STATES = "queued|starting|running|paused"

PAGE = Page(
    uid="lorry-training",
    title="Lorry: trainings",
    says="What waits, what runs, how it ended and what it costs. docs/jobs.md explains jobs and workers.",
    rows=(
        Row(
            title="Funnel",
            panels=(
                Panel(
                    title="Jobs under way",
                    says="From queued to running; paused ones wait for a person.",
                    queries=(
                        Query(expr=f'max by (state) (lorry_training_jobs{{state=~"{_STATES}"}})', legend="{{state}}"),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="How jobs ended",
                    says="All that are kept. Rejected: trained well, and the gate keeps the version from being live.",
                    queries=(
                        Query(
                            expr='max by (state) (lorry_training_jobs{state=~"succeeded|rejected|failed|canceled"})',
                            legend="{{state}}",
                        ),
                    ),
                    kind="number",
                ),
                Panel(
                    title="Oldest that waits for a worker",
                    says="Of the jobs whose turn may come.",
                    queries=(Query(expr="max(lorry_training_oldest_waiting_seconds)"),),
                    unit="s",
                ),
                Panel(
                    title="Ended in an hour",
                    says="Trainings that ended in the last hour, by outcome.",
                    queries=(
                        Query(
                            expr=(
                                "clamp_min(max by (state) (delta("
                                'lorry_training_jobs{state=~"succeeded|rejected|failed"}[1h])), 0)'
                            ),
                            legend="{{state}}",
                        ),
                    ),
                ),
                Panel(
                    title="Workers",
                    says="Lapsed ones are dead to us: others adopt their jobs.",
                    queries=(Query(expr="max by (state) (lorry_training_workers)", legend="{{state}}"),),
                    kind="stacked",
                ),
                Panel(
                    title="The service's database",
                    says="1 = PostgreSQL answered the last scrape.",
                    queries=(Query(expr="min(lorry_training_database_up)"),),
                    kind="number",
                ),
            ),
        ),
        Row(
            title="What is wrong",
            panels=(
                Panel(
                    title="Failures of the last hour",
                    says="By reason: many for one reason are a part that is broken.",
                    queries=(
                        Query(
                            expr="max by (reason) (lorry_training_recent_failures)",
                            legend="{{reason}}",
                            may_be_empty="nothing failed",
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Users under whom workers died",
                    says="Given up in the last day; not tried again by themselves.",
                    queries=(Query(expr="max(lorry_training_poison_users)"),),
                    kind="number",
                    alarm_at=1,
                ),
                Panel(
                    title="Campaigns that stand still",
                    says="They begin nothing although their rate lets them.",
                    queries=(Query(expr="max(lorry_training_stalled_campaigns)"),),
                    kind="number",
                    alarm_at=1,
                ),
            ),
        ),
        Row(
            title="Cost of the last 30 days",
            panels=(
                Panel(
                    title="Question writers",
                    says="What services were paid; an offline writer costs nothing.",
                    queries=(Query(expr="max(lorry_training_month_dollars)"),),
                    unit="currencyUSD",
                    kind="number",
                    width=6,
                ),
                Panel(
                    title="Nearest to its limit",
                    says="Largest share of a tenant's dollars of the month that is spent; an alert rings at 80 %.",
                    queries=(Query(expr="max(lorry_training_spent_share)"),),
                    unit="percentunit",
                    kind="number",
                    width=6,
                    alarm_at=0.8,
                ),
                Panel(
                    title="Devices",
                    says="How long they trained and evaluated.",
                    queries=(Query(expr="max by (kind) (lorry_training_month_device_seconds)", legend="{{kind}}"),),
                    unit="s",
                    kind="number",
                    width=6,
                ),
                Panel(
                    title="Devices' load",
                    says="Seconds of devices in 30 days, of what the workers that live now would have.",
                    queries=(
                        Query(
                            expr=(
                                "sum(max by (kind) (lorry_training_month_device_seconds))"
                                ' / clamp_min(2592000 * max(lorry_training_workers{state="alive"}), 1)'
                            )
                        ),
                    ),
                    unit="percentunit",
                    width=6,
                ),
            ),
        ),
        Row(
            title="The service",
            panels=(
                Panel(
                    title="Requests by status",
                    says="A second.",
                    queries=(
                        Query(expr="sum by (status) (rate(lorry_training_requests_total[5m]))", legend="{{status}}"),
                    ),
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    title="Duration, p95 by route",
                    says="Event streams are as long as somebody looks.",
                    queries=(
                        Query(
                            expr=(
                                "histogram_quantile(0.95, sum by (le, route)"
                                " (rate(lorry_training_request_seconds_bucket[5m])))"
                            ),
                            legend="{{route}}",
                        ),
                    ),
                    unit="s",
                    width=12,
                ),
            ),
        ),
    ),
)
