"""`topoprune doctor`."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

import click

from lmms_topoprune.cli import options


@click.command()
@options.as_json
def command(as_json: bool) -> int:
    """Say what works on this machine and how to mend what does not.

    Looks at versions, the registration with lmms-eval, the wrapped models, the embedded model and tasks,
    an accelerator, the hub and optional packages. The exit code is 1 if anything that is needed fails;
    what is optional is only told.
    """
    from lmms_topoprune.cli.checkup import examine

    logging.disable(logging.WARNING)
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            mark = "ok  " if finding.works else "FAIL" if finding.needed else "  - "
            click.echo(f"{mark} {finding.what}: {finding.detail}")
            if not finding.works and finding.mend:
                click.echo(f"       {finding.mend}")
    healthy = all(finding.works for finding in findings if finding.needed)
    if as_json:
        click.echo(json.dumps({"healthy": healthy, "findings": [asdict(f) for f in findings]}))
    return 0 if healthy else 1
