"""Several processes answer; the first one reports for all."""

from __future__ import annotations

from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.harness.answers import Answers


def gathered(answers: Answers) -> Answers:
    """The counts of all processes together."""
    total = Answers()
    for part in Ranks.current().together(lambda: answers):
        total += part
    return total
