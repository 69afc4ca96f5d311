"""`topoprune doctor`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lmms_topoprune.cli import options

if TYPE_CHECKING:
    from lmms_topoprune.cli.checkup import Finding


@click.command()
@options.as_json
def command(as_json: bool) -> int:
    """Say what works on this machine and how to mend what does not.

    Looks at versions, the registration with lmms-eval, the wrapped models, the embedded model and tasks,
    an accelerator, the hub and optional packages. The exit code is 1 if anything that is needed fails;
    what is optional is only told.
    """
    from lmms_topoprune.cli.checkup import examine

    findings = []
    with _without_warnings():
        for finding in examine():
            findings.append(finding)
            if not as_json:
                _show(finding)
    healthy = all(finding.works for finding in findings if finding.needed)
    if as_json:
        click.echo(json.dumps({"healthy": healthy, "findings": [asdict(f) for f in findings]}))
    return 0 if healthy else 1


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What libraries warn of while they are imported would stand between the findings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _show(finding: Finding) -> None:
    mark = "ok  " if finding.works else "FAIL" if finding.needed else "  - "
    click.echo(f"{mark} {finding.what}: {finding.detail}")
    if not finding.works and finding.mend:
        click.echo(f"       {finding.mend}")
