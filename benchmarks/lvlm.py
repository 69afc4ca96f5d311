"""The results table of known vision-language models on MME, GQA and MMBench, with latency.

    python benchmarks/lvlm.py runs/lvlm                      # all models; needs a GPU and the hub
    python benchmarks/lvlm.py runs/lvlm --models qwen2.5-vl-3b --limit 500
    python benchmarks/lvlm.py runs/lvlm --model mine=dense_llava:folder/of/my-llava

Each model is one `topoprune sweep` in a folder of its own below the given one: interrupted, even by
kill -9, it goes on where it was when the same command is given again. Then `topoprune compare` writes
each model's leaderboard and costs, MODEL/table.md and MODEL/table.json, and table.md has them all.

Sizes in bfloat16: LLaVA-1.5-7B and LLaVA-NeXT about 15 GB, Qwen2.5-VL-3B 8 GB, and a few GB for the
images' tokens. The data sets are lmms-lab-encoder's MME, GQA and MMBench; a folder of that relative name in
the working directory is read instead, if there is one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

MODELS = {
    "llava-1.5-7b": "dense_llava:llava-hf/llava-1.5-7b-hf",
    "qwen2.5-vl-3b": "dense_qwen2_5_vl:Qwen/Qwen2.5-VL-3B-Instruct",
    "llava-next": "dense_llava:llava-hf/llava-v1.6-mistral-7b-hf",
}
TASKS = "mme,gqa,mmbench_en_dev_letters"
CRITERIA = "topology_angle_influence,block_influence,cosine,angular,random,uniform,last_n"
OWN_TASKS = Path(__file__).with_name("lvlm_tasks")


def topoprune(*arguments: str) -> None:
    """Run a command of the package, its output on this screen.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run([sys.executable, "-m", "lmms_topoprune.cli.main", *arguments], check=True)


def chosen(names: str, own: tuple[str, ...]) -> dict[str, str]:
    """Name -> "MODEL:PRETRAINED" of what to evaluate.

    Raises:
        UsageError: an unknown name, or a model that is not NAME=MODEL:PRETRAINED.
    """
    wanted = [name for name in names.split(",") if name]
    if unknown := [name for name in wanted if name not in MODELS]:
        raise click.UsageError(f"--models is {','.join(unknown)}; allowed: {', '.join(MODELS)}")
    found = {name: MODELS[name] for name in wanted}
    for given in own:
        name, equals, model = given.partition("=")
        if not (name and equals and ":" in model):
            raise click.UsageError(f"--model is {given}; allowed: NAME=MODEL:PRETRAINED")
        found[name] = model
    return found


def sweep(model: str, folder: Path, shared: list[str]) -> None:
    """Every cell of one model that is not there yet."""
    family, _, pretrained = model.partition(":")
    topoprune("sweep", "--model", family, "--pretrained", pretrained, "-o", str(folder), *shared)


def table(folder: Path) -> str:
    """Write and return a model's leaderboard as Markdown."""
    target = folder / "table.md"
    topoprune("compare", str(folder), "-o", str(target), "-o", str(folder / "table.json"))
    return target.read_text(encoding="utf-8")


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--models", default=",".join(MODELS), show_default=True, help="Names, joined by commas.")
@click.option("--model", "own", multiple=True, help="Another one: NAME=MODEL:PRETRAINED; repeatable.")
@click.option("--tasks", default=TASKS, show_default=True)
@click.option("--criteria", default=CRITERIA, show_default=True)
@click.option("--sparsities", default="0.1,0.2,0.3,0.4", show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True, help="Of the calibration set.")
@click.option("--samples", default=256, show_default=True, help="Calibration samples.")
@click.option("--limit", default=None, help="Questions a task; all if left out.")
@click.option("--batch-size", default=16, show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--device", default=None, help="Such as cuda:0 or cpu.")
def main(
    folder: Path,
    models: str,
    own: tuple[str, ...],
    tasks: str,
    criteria: str,
    sparsities: str,
    seeds: str,
    samples: int,
    limit: str | None,
    batch_size: int,
    dtype: str,
    device: str | None,
) -> None:
    given = {
        "--tasks": tasks,
        "--include-path": OWN_TASKS,
        "--criteria": criteria,
        "--sparsities": sparsities,
        "--seeds": seeds,
        "--samples": samples,
        "--batch-size": batch_size,
        "--dtype": dtype,
        "--limit": limit,
        "--device": device,
    }
    shared = [str(part) for flag, value in given.items() if value is not None for part in (flag, value)]
    tables = []
    for name, model in chosen(models, own).items():
        click.echo(f"== {name}: {model}")
        sweep(model, folder / name, shared)
        tables.append(f"## {name} ({model.partition(':')[2]})\n\n{table(folder / name)}")
        (folder / "table.md").write_text("\n".join(tables), encoding="utf-8")
    click.echo(f"{folder / 'table.md'}")


if __name__ == "__main__":
    main()
