"""What every dashboard is made of: rows of panels, each one question and the queries that answer it.

A panel is a value, so that a test can read its queries; `draw` makes Grafana's JSON of a whole page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, Threshold, ThresholdsMode

Kind = Literal["lines", "stacked", "number"]
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, kw_only=True)
class Query:
    """One PromQL expression; `legend` as Grafana writes it, with labels in double braces.

    `may_be_empty` says why a healthy system can have no series for it: every other query of an idle one gives data.
    """

    expr: str
    legend: str = ""
    may_be_empty: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One question, in a sentence, and what answers it. `alarm_at` colours a number from there on."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "lines"
    width: int = 8
    alarm_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """One dashboard; `uid` is its address in Grafana and its file's name."""

    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]

    def queries(self) -> list[Query]:
        """Return every query of every panel."""
        return [query for row in self.rows for panel in row.panels for query in panel.queries]


def draw(page: Page) -> str:
    """Return Grafana's JSON of a dashboard."""
    board = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.says)
        .tags(["lorry"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for row in page.rows:
        board = board.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            board = board.with_panel(_drawn(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _drawn(panel: Panel) -> Any:
    made: Any = stat.Panel() if panel.kind == "number" else _lines(stacked=panel.kind == "stacked")
    made = made.title(panel.title).description(panel.says).unit(panel.unit).datasource(_SOURCE)
    made = made.span(panel.width).height(8)
    if panel.alarm_at is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=panel.alarm_at, color="red")]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for number, query in enumerate(panel.queries):
        target = (
            prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(chr(65 + number))
        )
        made = made.with_target(target)
    return made


def _lines(*, stacked: bool) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = timeseries.Panel().legend(legend.show_legend(True)).min(0)
    made = made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if not stacked:
        return made
    return made.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))


def ratio(part: str, whole: str) -> str:
    """Return a share in PromQL that is 0, not NaN, while nothing happens."""
    return f"({part}) / clamp_min({whole}, 1e-9)"
