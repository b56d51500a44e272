"""`kabench load`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REDIS, HTTP, TLS = "Redis", "HTTP", "TLS"


def load(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="redis://[user:password@]host[:port][/db], rediss://, http:// or https:// with a path; "
            "or one scenario file whose phases are standing.",
        ),
    ],
    rate: Annotated[
        float | None, typer.Option(help="Open loop: requests a second in all, over agents and targets.")
    ] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Closed loop: each connection asks again once it has a reply.")
    ] = False,
    ramp: Annotated[
        str | None, typer.Option(metavar="FROM:TO", help="Open loop, at a rate that changes evenly.")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="R1,R2,...", help="Open loop, at rates that take turns, equally long."),
    ] = None,
    find_rate: Annotated[
        str | None,
        typer.Option(
            metavar="PROMISE",
            help="Open loop: search the highest rate that holds, such as 'p99 < 1ms' or 'p99.9 < 5ms, errors < 0.1%'; "
            "--rate is the first to be tried, --duration that of each try.",
        ),
    ] = None,
    arrivals: Annotated[str | None, typer.Option(help="poisson or constant. [poisson]")] = None,
    duration: Annotated[
        str | None, typer.Option(help="Length of the window. [10s; 5s with --find-rate]")
    ] = None,
    warmup: Annotated[str | None, typer.Option(help="Driven before it and not recorded. [1s]")] = None,
    connections: Annotated[
        int | None,
        typer.Option("--connections", "-c", help="To each target, over all agents, split evenly. [50]"),
    ] = None,
    pipeline: Annotated[
        int | None, typer.Option(help="Redis: requests in flight on a connection. [1]")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Of a request. [2s]")] = None,
    agents: Annotated[
        int | None, typer.Option(help="Processes on this machine, each with its share of the CPUs. [1]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn. [a new one]")] = None,
    out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")
    ] = False,
    driver: Annotated[
        str | None, typer.Option(help="wire, or a client library: asyncio-redis, aiohttp. [wire]")
    ] = None,
    correct: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="Closed loop: also estimate response times as if each connection had asked every INTERVAL.",
        ),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="CMD=WEIGHT,...",
            help="Redis: get, set, incr, lpush, lrange, hset, hgetall, mget, or a command in quotes with __key__ "
            "and __data__. [get=9,set=1]",
        ),
    ] = None,
    keys: Annotated[int | None, typer.Option(help="Redis: size of the key space. [1000]")] = None,
    key_distribution: Annotated[str | None, typer.Option(help="Redis: uniform or zipf. [uniform]")] = None,
    value_size: Annotated[int | None, typer.Option(help="Redis: bytes of a value. [64]")] = None,
    no_fill: Annotated[
        bool, typer.Option("--no-fill", help="Redis: write nothing beforehand; nil is no error then.")
    ] = False,
    method: Annotated[str | None, typer.Option(help="HTTP. [GET, or POST with a body]")] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="HTTP; repeatable.")
    ] = None,
    body: Annotated[str | None, typer.Option(metavar="TEXT|@FILE", help="HTTP.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[=WEIGHT]", help="HTTP: instead of the URL's; repeatable."),
    ] = None,
    no_keep_alive: Annotated[
        bool, typer.Option("--no-keep-alive", help="HTTP: a new connection for every request.")
    ] = False,
    expect_status: Annotated[
        str | None, typer.Option(metavar="CODE,...", help="HTTP: what is no error. [below 400]")
    ] = None,
    cacert: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            help="TLS: authorities to trust instead of the system's.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", "-k", help="TLS: do not check certificates.")
    ] = False,
) -> None:
    """Load servers that stand already, and leave data and charts in OUT/RUN.

    Give --rate (or --ramp, --steps) for an open loop, in which requests leave by a schedule whatever the server does, so
    that queueing shows; or --closed.
    """
    from kabench.cli.loading import LoadRequest, execute
    from kabench.cli.sources import read_body, seconds
    from kabench.core.load_flags import LoadFlags

    text, encoded = read_body(body)
    flags = LoadFlags(
        rate_per_s=rate,
        closed=closed,
        arrivals=arrivals,
        ramp=ramp,
        steps=steps,
        duration_s=seconds(duration, "--duration"),
        warm_up_s=seconds(warmup, "--warmup", zero=True),
        connections=connections,
        pipeline=pipeline,
        timeout_s=seconds(timeout, "--timeout"),
        agents=agents,
        seed=seed,
        driver=driver,
        mix=mix,
        keys=keys,
        key_distribution=key_distribution,
        value_bytes=value_size,
        fill=False if no_fill else None,
        method=method,
        headers=tuple(header or ()),
        paths=tuple(path or ()),
        body=text,
        body_base64=encoded,
        keep_alive=False if no_keep_alive else None,
        expect_status=expect_status,
        ca_file=None if cacert is None else str(cacert.absolute()),
        verify=False if insecure else None,
    )
    request = LoadRequest(tuple(targets), flags, out, as_json, seconds(correct, "--correct"), find_rate)
    code = execute(request)
    if code:
        raise typer.Exit(code)
