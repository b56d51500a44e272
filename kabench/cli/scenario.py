"""`kabench scenario show|validate|schema`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="Look at scenarios and check them.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="A YAML file, or the name of a built-in scenario.")]


@app.command()
def show(source: Source = "seed") -> None:
    """Print a scenario's text: a place to start your own from."""
    from kabench.cli.sources import read_source

    typer.echo(read_source(source)[0], nl=False)


@app.command()
def validate(source: Source = "seed") -> None:
    """Check a scenario, and print what it would do."""
    from kabench.cli.sources import load_source
    from kabench.core.load_flags import describe_load
    from kabench.core.plan import describe_plan

    scenario = load_source(source)
    for line in describe_load(scenario) if scenario.standing else describe_plan(scenario):
        typer.echo(line)
    typer.echo(f"{source}: valid")


@app.command()
def schema() -> None:
    """Print the JSON schema of scenario files, for editors."""
    from kabench.core.spec import Scenario

    typer.echo(json.dumps(Scenario.model_json_schema(), indent=2))
