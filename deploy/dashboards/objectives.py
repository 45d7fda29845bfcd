"""Objectives: what users were promised, how fast the room for failure is used up, and what fires now."""

from __future__ import annotations

from deploy.dashboards.panels import Page, Panel, Query, Row, ratio


def _burn(record: str, allowed: float) -> tuple[Query, ...]:
    return tuple(
        Query(expr=f"{record}{window} / {allowed}", legend=f"over {window}") for window in ("5m", "1h", "6h", "3d")
    )


PAGE = Page(
    uid="lorry-objectives",
    title="Lorry: objectives",
    says="What users were promised, how fast the room for failure is used up, and what fires now.",
    rows=(
        Row(
            title="Alerts",
            panels=(
                Panel(
                    title="Firing now",
                    says="Each alert links to its runbook.",
                    queries=(
                        Query(
                            expr='sum by (alertname, severity) (ALERTS{alertname=~"Lorry.*",alertstate="firing"})',
                            legend="{{severity}}: {{alertname}}",
                            may_be_empty="nothing fires",
                        ),
                    ),
                    kind="number",
                    width=24,
                ),
            ),
        ),
        Row(
            title="999 of 1000 requests to the gateway are answered without a failure of ours",
            panels=(
                Panel(
                    title="Failures of three days",
                    says="Share of answers from 500 on; 0.1 % is promised.",
                    queries=(Query(expr="lorry:gateway_errors:ratio_rate3d"),),
                    unit="percentunit",
                    kind="number",
                    alarm_at=0.001,
                ),
                Panel(
                    title="Burn rate",
                    says="1 uses up exactly what is allowed; 14.4 over an hour pages somebody.",
                    queries=_burn("lorry:gateway_errors:ratio_rate", 0.001),
                    width=16,
                ),
            ),
        ),
        Row(
            title="99 of 100 live requests wait at most a second for their slot",
            panels=(
                Panel(
                    title="Slower ones of three days",
                    says="1 % is promised.",
                    queries=(Query(expr="lorry:live_waits_slow:ratio_rate3d"),),
                    unit="percentunit",
                    kind="number",
                    alarm_at=0.01,
                ),
                Panel(
                    title="Burn rate",
                    says="1 uses up exactly what is allowed; 14.4 over an hour pages somebody.",
                    queries=_burn("lorry:live_waits_slow:ratio_rate", 0.01),
                    width=16,
                ),
            ),
        ),
        Row(
            title="The gateway",
            panels=(
                Panel(
                    title="Requests by status",
                    says="A second; 499 = the client went away.",
                    queries=(
                        Query(expr="sum by (status) (rate(lorry_gateway_requests_total[5m]))", legend="{{status}}"),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Duration, p95 by route",
                    says="Until the end of the response: of chats, until the last token.",
                    queries=(
                        Query(
                            expr=(
                                "histogram_quantile(0.95, sum by (le, route)"
                                " (rate(lorry_gateway_request_seconds_bucket[5m])))"
                            ),
                            legend="{{route}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Calls of engines",
                    says="A second. other = engines of bases with their own; other_base = a base that none serves.",
                    queries=(
                        Query(
                            expr="sum by (engine, ending) (rate(lorry_gateway_engine_calls_total[5m]))",
                            legend="{{engine}}: {{ending}}",
                        ),
                    ),
                    kind="stacked",
                ),
                Panel(
                    title="Refused for the caller's reasons",
                    says="Share of answers from 400 to 498.",
                    queries=(
                        Query(
                            expr=ratio(
                                'sum(rate(lorry_gateway_requests_total{status=~"4..",status!="499"}[5m])) or vector(0)',
                                "sum(rate(lorry_gateway_requests_total[5m]))",
                            )
                        ),
                    ),
                    unit="percentunit",
                ),
            ),
        ),
    ),
)
