"""Which plots are drawn of the tables of the benchmarks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import plot
from p2pnet.lab.report import Row


def column(rows: Sequence[Row], key: str, value: str) -> dict[str, list[float]]:
    """One column by another, of the rows that have it."""
    return {row[key]: row[value] for row in rows if row.get(value) is not None}


def by_links(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """RATE:RTT -> tunnel -> loss -> Mbit/s, of links that were tried with several losses."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        rate, rtt, loss = (part.split()[0] for part in row["link"].split(","))
        tunnels = found.setdefault(f"{rate}:{rtt}", {})
        tunnels.setdefault(row["tunnel"], {})[loss] = row["Mbit/s"][0]
    return {link: t for link, t in found.items() if any(len(losses) > 1 for losses in t.values())}


def draw(tables: Mapping[str, Sequence[Row]], directory: Path) -> None:
    """The plots of what was measured."""
    if rows := tables.get("A forwarded connection"):
        for name, title, figure in (
            ("throughput", "An upload through a forward, MB/s", "MB/s"),
            ("latency", "A 100-byte request through a forward, µs (p50)", "echo_p50_us"),
            ("cost", "Processor time of both ends, s/GB", "cpu_s/GB"),
        ):
            found = column(rows, "tunnel", figure)
            unit = "medians, the line from least to most, loopback"
            if found:
                plot.save(directory, name, plot.bars(title, unit, found))
    if rows := tables.get("From connecting to the first byte"):
        spans = {row["set-up"]: [row["p50_ms"], row["p50_ms"], row["p99_ms"]] for row in rows}
        title = "From connecting to the first byte, and to a direct path, ms"
        plot.save(directory, "set-up", plot.bars(title, "p50, the line to p99, loopback", spans))
    if rows := tables.get("Uploads on many connections"):
        names = [name for name in rows[0] if name.startswith("MB/s")]
        series = {row["tunnel"]: [row[n][0] if row[n] else None for n in names] for row in rows}
        marks = [name.rpartition("_")[2] for name in names]
        title, unit = "Uploads on many connections", "MB/s in all, by connections"
        plot.save(directory, "streams", plot.lines(title, unit, marks, series))
    if rows := tables.get("Uploads over a link"):
        for link, by_loss in by_links(rows).items():
            losses = sorted({loss for values in by_loss.values() for loss in values}, key=float)
            series = {
                name: [values.get(loss) for loss in losses] for name, values in by_loss.items()
            }
            title = f"An upload through a forward, {link.replace(':', ' Mbit/s, ')} ms"
            document = plot.lines(title, "Mbit/s, by loss in %", losses, series)
            plot.save(directory, f"loss-{link.replace(':', '-')}", document)
    if rows := tables.get("Relaying, as sessions grow"):
        marks = [str(row["sessions"]) for row in rows]
        series = {"Intermediate": [row["cpu_us"][0] for row in rows]}
        title, unit = "Processor time of a relayed datagram", "µs, by sessions"
        document = plot.lines(title, unit, marks, series, logarithmic=False)
        plot.save(directory, "sessions", document)
