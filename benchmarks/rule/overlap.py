"""How often a rule chose in confirmation what it had chosen in development, on the same model.

    python benchmarks/rule/overlap.py runs/rule/development/smollm2 runs/rule/confirmation/smollm2

A set of layers that was already seen in development is judged by other documents only.
"""

from __future__ import annotations

from pathlib import Path

import click
from table import Outcome


@click.command()
@click.argument("development", type=click.Path(path_type=Path, exists=True))
@click.argument("confirmation", type=click.Path(path_type=Path, exists=True))
def main(development: Path, confirmation: Path) -> None:
    """Print for every rule and sparsity how many of the seeds' sets are not new."""
    before, after = Outcome(development), Outcome(confirmation)
    sparsities = sorted({sparsity for _, sparsity in after.choices})
    click.echo(f"| rule | {' | '.join(f'{s:.0%}' for s in sparsities)} |")
    click.echo("|---|" + "---:|" * len(sparsities))
    for rule in after.rules:
        cells = []
        for sparsity in sparsities:
            seen = set(before.choices.get((rule, sparsity), {}).values())
            chosen = after.choices.get((rule, sparsity), {}).values()
            cells.append(f"{sum(layers in seen for layers in chosen)} of {len(chosen)}" if seen else "-")
        click.echo(f"| {rule} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
