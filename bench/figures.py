"""Which plots are drawn of the tables of the benchmarks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import plot
from bench.report import Row

Plots = Iterator[tuple[str, str]]
"""Names and documents."""


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


def forward(rows: Sequence[Row]) -> Plots:
    """Tunnels beside each other."""
    for name, title, figure in (
        ("throughput", "An upload through a forward, MB/s", "MB/s"),
        ("latency", "A 100-byte request through a forward, µs (p50)", "echo_p50_us"),
        ("cost", "Processor time of both ends, s/GB", "cpu_s/GB"),
    ):
        if found := column(rows, "tunnel", figure):
            yield name, plot.bars(title, "medians, the line from least to most, loopback", found)


def set_up(rows: Sequence[Row]) -> Plots:
    """What a user waits for."""
    spans = {row["set-up"]: [row["p50_ms"], row["p50_ms"], row["p99_ms"]] for row in rows}
    title = "From connecting to the first byte, and to a direct path, ms"
    yield "set-up", plot.bars(title, "p50, the line to p99, loopback", spans)


def streams(rows: Sequence[Row]) -> Plots:
    """Rates by numbers of connections."""
    names = [name for name in rows[0] if name.startswith("MB/s")]
    series = {row["tunnel"]: [row[n][0] if row[n] else None for n in names] for row in rows}
    marks = [name.rpartition("_")[2] for name in names]
    title, unit = "Uploads on many connections", "MB/s in all, by connections"
    yield "streams", plot.lines(title, unit, marks, series)


def sessions(rows: Sequence[Row]) -> Plots:
    """The Intermediate's cost by numbers of sessions."""
    marks = [str(row["sessions"]) for row in rows]
    series = {"Intermediate": [row["cpu_us"][0] for row in rows]}
    title, unit = "Processor time of a relayed datagram", "µs, by sessions"
    yield "sessions", plot.lines(title, unit, marks, series, logarithmic=False)


def loss(rows: Sequence[Row]) -> Plots:
    """Rates by loss, a plot for each link."""
    for link, by_loss in by_links(rows).items():
        losses = sorted({loss for values in by_loss.values() for loss in values}, key=float)
        series = {name: [values.get(loss) for loss in losses] for name, values in by_loss.items()}
        title = f"An upload through a forward, {link.replace(':', ' Mbit/s, ')} ms"
        document = plot.lines(title, "Mbit/s, by loss in %", losses, series)
        yield f"loss-{link.replace(':', '-')}", document


def draw(tables: Mapping[str, Sequence[Row]], directory: Path) -> None:
    """Write the plots of the tables that there are."""
    for title, plots in DRAWN.items():
        for name, document in plots(tables[title]) if tables.get(title) else ():
            (directory / f"{name}.svg").write_text(document)


DRAWN: Mapping[str, Callable[[Sequence[Row]], Plots]] = {
    "A forwarded connection": forward,
    "From connecting to the first byte": set_up,
    "Uploads on many connections": streams,
    "Relaying, as sessions grow": sessions,
    "Uploads over a link": loss,
}
"""What is drawn of the table of that title."""
