"""`topoprune regress`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from lmms_topoprune.cli import shared


@click.command()
@click.argument("run", type=shared.PATH)
@click.option("--baseline", type=shared.PATH, help="A baseline file, or a result folder with one run.")
@click.option("--tolerance", default=1.0, show_default=True, help="Points of score that may be lost.")
@click.option("--same-plan", is_flag=True, help="Also fail if other layers are dropped.")
@click.option("--junit", "junit_path", type=shared.PATH, help="Write JUnit XML here.")
@click.option("--summary", "summary_path", type=shared.PATH, help="Write the Markdown table here.")
@click.option(
    "--save-baseline", type=shared.PATH, help="Write RUN as a baseline file here, and compare nothing."
)
@shared.tasks_and_metric
@shared.seed
@shared.as_json
def command(
    run: str,
    baseline: str | None,
    tolerance: float,
    same_plan: bool,
    junit_path: str | None,
    summary_path: str | None,
    save_baseline: str | None,
    tasks: tuple[str, ...],
    metric: str | None,
    seed: int,
    as_json: bool,
) -> int:
    """Fail when a run is worse than its baseline by more than noise.

    RUN is a result folder of lmms-eval with one run in it. A score fails if it dropped by more than the
    tolerance and the paired test has p <= 0.05; then the exit code is 1. On GitHub the failures become
    annotations, and the table becomes the job's summary.

    \b
    Examples:
      topoprune regress runs/pruned --save-baseline baseline.json     # once
      topoprune regress runs/pruned --baseline baseline.json --same-plan
    """
    from lmms_topoprune._util.escape import printable
    from lmms_topoprune._util.files import write_all
    from lmms_topoprune.comparison.regression import (
        github_annotations,
        junit,
        read_baseline,
        regress,
    )
    from lmms_topoprune.comparison.regression import (
        save_baseline as save,
    )
    from lmms_topoprune.errors import OptionError
    from lmms_topoprune.results.reading import read_run

    if not 0 <= tolerance < 100:
        raise OptionError(f"tolerance is {tolerance:g}; allowed: 0 <= tolerance < 100, in points")
    if junit_path and summary_path and Path(junit_path).resolve() == Path(summary_path).resolve():
        raise OptionError(f"summary is {summary_path!r}, where junit goes; allowed: another file")
    if save_baseline:
        save(read_run(run, tasks, metric), save_baseline)
        click.echo(
            json.dumps({"baseline": save_baseline}) if as_json else f"Baseline written to {save_baseline}."
        )
        return 0
    if baseline is None:
        raise OptionError("baseline is missing; pass --baseline FILE, or --save-baseline FILE to make one")
    checks, table = regress(
        read_baseline(baseline, tasks, metric),
        read_run(run, tasks, metric),
        tolerance=tolerance / 100,
        same_plan=same_plan,
        seed=seed,
    )
    wanted = {junit_path: junit(checks), summary_path: table}
    write_all({Path(path): text for path, text in wanted.items() if path})
    passed = all(check.passed for check in checks)
    if as_json:
        click.echo(json.dumps({"passed": passed, "checks": [asdict(check) for check in checks]}))
    else:
        for check in checks:
            click.echo(printable(f"{'ok  ' if check.passed else 'FAIL'} {check.message}"))
    _tell_github(table, github_annotations(checks))
    return 0 if passed else 1


def _tell_github(table: str, errors: str) -> None:
    """Annotations go to standard error, so that --json stays clean; GitHub reads both streams."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        click.echo(errors, err=True, nl=False)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(f"### topoprune regress\n\n{table}\n")
        except OSError as error:
            # The verdict counts, not where it is shown.
            click.echo(
                f"topoprune: the job's summary {summary!r} cannot be written: {error.strerror}", err=True
            )
