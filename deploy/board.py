# ruff: noqa: E501  (queries are one line each)
"""Write the Grafana board: `python deploy/board.py`. Panels are listed once here; docs/metrics.md explains the metrics."""

import json
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parent / "grafana" / "dashboards" / "thex.json"
PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Calls by method and code",
        "reqps",
        (("sum by (method, code) (rate(thex_rpc_duration_seconds_count[$__rate_interval]))", "{{method}} {{code}}"),),
    ),
    (
        "Query: median and 95th percentile",
        "s",
        tuple(
            (
                f'histogram_quantile({q}, sum by (le) (rate(thex_rpc_duration_seconds_bucket{{method="Infer",code="OK"}}[$__rate_interval])))',
                name,
            )
            for q, name in ((0.5, "median"), (0.95, "95 %"))
        ),
    ),
    (
        "Stages of a query, mean",
        "s",
        (
            (
                "sum by (stage) (rate(thex_stage_duration_seconds_sum[$__rate_interval])) / sum by (stage) (rate(thex_stage_duration_seconds_count[$__rate_interval]))",
                "{{stage}}",
            ),
        ),
    ),
    (
        "Queue and workers",
        "short",
        (("thex_queue_length", "waiting"), ("thex_jobs_computing", "computing"), ("thex_workers_ready", "workers up")),
    ),
    ("Refusals by reason", "reqps", (("sum by (reason) (rate(thex_refused_total[$__rate_interval]))", "{{reason}}"),)),
    (
        "Bytes",
        "Bps",
        (
            ("sum(rate(thex_received_bytes_total[$__rate_interval]))", "received"),
            ("sum(rate(thex_sent_bytes_total[$__rate_interval]))", "sent"),
        ),
    ),
    (
        "Key store",
        "bytes",
        (
            ("thex_key_store_bytes", "keys"),
            ("thex_key_store_budget_bytes", "budget"),
            ("thex_disk_free_bytes", "disk free"),
        ),
    ),
    ("Key sets that went", "short", (("sum by (reason) (increase(thex_key_sets_removed_total[1h]))", "{{reason}}"),)),
    (
        "Workers restarted, inputs quarantined",
        "short",
        (
            ("sum by (cause) (increase(thex_worker_restarts_total[1h]))", "{{cause}}"),
            ("increase(thex_quarantined_total[1h])", "quarantined"),
        ),
    ),
    ("Memory of the front", "bytes", (("process_resident_memory_bytes", "resident"),)),
)


def board() -> dict[str, Any]:
    """The board as Grafana reads it."""
    panels = [
        {
            "id": number + 1,
            "title": title,
            "type": "timeseries",
            "datasource": {"type": "prometheus", "uid": "prometheus"},
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
                for index, (expression, legend) in enumerate(queries)
            ],
        }
        for number, (title, unit, queries) in enumerate(PANELS)
    ]
    return {
        "uid": "thex",
        "title": "THE-X",
        "schemaVersion": 41,
        "version": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["thex"],
        "panels": panels,
    }


if __name__ == "__main__":
    BOARD.write_text(json.dumps(board(), indent=1) + "\n")
