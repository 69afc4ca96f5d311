"""Criteria and repairs by name, this package's and other people's. Imports no torch.

plugin.toml, which is read here and nowhere else, says where this package's own are. Other packages add theirs
by entry points (groups lmms_topoprune.criteria and lmms_topoprune.repairs), Python by the decorators
`criterion` and `repair`; and wherever a name is asked for, "package.module:name" and "file.py:name" will do.
All is imported when it is first asked for; what is broken is named in `problems` and takes nothing else down.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any, ClassVar, TypeVar

from lmms_topoprune._util import files
from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune._util.references import PACKAGE, load, source_digest
from lmms_topoprune.errors import InputError, OptionError, TopopruneError, shown, unknown

REVERSE = "reverse:"
ANY_OPTION = ("k", "dimension", "metric", "alpha", "sparsity", "protect_first", "protect_last", "seed")
"""Options that scores can depend on, beside those of the calibration set."""

TOKEN_SUMS = ("token_cosine", "relative_magnitude")
"""Means over all tokens that a criterion can read."""

T = TypeVar("T", "Criterion", "Repair")


@dataclass(frozen=True)
class Criterion:
    """A rule that scores layers; calling it scores.

    Attributes:
        name: as it is asked for.
        score: the function, which returns LayerScores or PairScores; None for the dense reference. It takes
            by name any of `states` (HiddenStates), `sums` (TokenSums), `loss` (LossOracle), `layers`
            (DecoderLayers) and `options` (PruningOptions); the first three only if they are declared below.
        summary: one line of what it looks at.
        paper: authors and title, if it is from one.
        address: where that paper is.
        bibtex: how to cite it.
        builds_on: criteria it combines; their papers are its own too.
        state: the states it reads when the user does not say: "residual", "norm", or "none".
        sums: names of the running sums over all tokens that it reads.
        loss: it needs the model's loss on the calibration texts.
        parameters: the options its scores depend on, beside those of the calibration set.
        through: what its zigzags go through, "intersections" or "unions"; the former also where it reads
            neighbors within states and no zigzag.
        selection: how its scores become layers when the user does not say.
        selection_without_sparsity: the same when no sparsity is given (it finds the count by itself).
        defaults: its own values of the options that PruningOptions lets a criterion have.
        reversed: its scores are turned round, so that what it would keep goes first.
        version: raised when the scores would come out differently; part of the cache's key.
    """

    kind: ClassVar[tuple[str, str]] = ("criterion", "criteria")
    name: str
    score: Callable[..., Any] | None = None
    summary: str = ""
    paper: str = ""
    address: str = ""
    bibtex: str = ""
    builds_on: tuple[Criterion, ...] = ()
    state: str = "residual"
    sums: tuple[str, ...] = ()
    loss: bool = False
    parameters: tuple[str, ...] = ANY_OPTION
    through: tuple[str, ...] = ("intersections",)
    selection: str = "rank"
    selection_without_sparsity: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    reversed: bool = False
    version: int = 1

    def __call__(self, *arguments: Any, **given: Any) -> Any:
        """The scores; takes what `score` takes.

        Raises:
            OptionError: the dense reference scores nothing.
            InputError: the function returned something else than scores.
        """
        if self.score is None:
            raise unknown("criterion", self.name, scoring_names())
        scores = self.score(*arguments, **given)
        from lmms_topoprune.selection import LayerScores, PairScores, reverse

        if not isinstance(scores, LayerScores | PairScores):
            raise InputError(
                f"criterion {self.name!r} returned a {type(scores).__name__}; "
                "allowed: LayerScores, PairScores"
            )
        return reverse(scores) if self.reversed else scores

    @property
    def needs_samples(self) -> bool:
        return self.state != "none" or bool(self.sums) or self.loss

    @property
    def papers(self) -> dict[str, str]:
        """Paper -> address; its own first, then those of the criteria it builds on."""
        found = {self.paper: self.address} if self.paper else {}
        for part in self.builds_on:
            found = {**found, **part.papers}
        return found

    @property
    def citations(self) -> list[str]:
        """BibTeX entries, its own first, each once."""
        parts = (entry for part in self.builds_on for entry in part.citations)
        return list(dict.fromkeys(entry for entry in (self.bibtex, *parts) if entry))

    @property
    def code(self) -> str | None:
        """A digest of the source file, if it is from outside; this package counts versions instead."""
        return source_digest(self.score)


@dataclass(frozen=True)
class Repair:
    """A way to make up for deleted layers without training.

    Attributes:
        name: as it is asked for.
        fit: finds the new weights: fit(job) -> (weights, figures), job being a lmms_topoprune.repair.job.Job.
        summary: one line of what it does.
        card: what a model card says of the repaired weights.
        figure: what the number means that it tells of every cut.
        paper, address: where it is from.
        projected: it reads sums with the projection before each cut.
        ridge: of its least squares, as a plan records it.
        version: raised when the same samples would give other weights.
    """

    kind: ClassVar[tuple[str, str]] = ("repair", "repairs")
    name: str
    fit: Callable[..., Any]
    summary: str = ""
    card: str = ""
    figure: str = ""
    paper: str = ""
    address: str = ""
    projected: bool = False
    ridge: float = 0.0
    version: int = 1

    @property
    def code(self) -> str | None:
        """As for a criterion."""
        return source_digest(self.fit)


DENSE = Criterion("dense", summary="nothing is deleted: the reference", state="none", parameters=())

_declared: dict[tuple[type, str], Any] = {}
"""What decorators made in this process."""


def criterion(name: str, **told: Any) -> Callable[[Callable[..., Any]], Criterion]:
    """Decorator: make a criterion of a scoring function, and let it be asked for by that name.

        @criterion("first", state="none", parameters=())
        def first(layers):
            '''The first layers go first.'''
            return LayerScores(-np.arange(layers.count, dtype=float), "first")

    Args:
        name: a word; not one of this package's.
        told: Criterion's other attributes. Unless told, `summary` is the docstring's first line, and what it
            reads follows from its arguments: with `states` the residual states, with `sums` all of them, with
            `loss` the loss, with `options` any option.

    Raises:
        OptionError: the name is this package's, Criterion has no such attribute, or no sum has that name.
    """
    return lambda function: _declare(Criterion, name, {**told, "score": function})


def repair(name: str, **told: Any) -> Callable[[Callable[..., Any]], Repair]:
    """Decorator: make a repair of the function that finds the new weights; otherwise as `criterion`."""
    return lambda function: _declare(Repair, name, {**told, "fit": function})


def _declare(kind: type[T], name: str, told: Mapping[str, Any]) -> T:
    what, table = kind.kind
    function = told.get("score") or told["fit"]
    if name in declarations()[table] and function.__module__.partition(".")[0] != PACKAGE:
        raise OptionError(f"{what} {name!r} comes with {PACKAGE}; choose another name")
    made = _build(kind, name, told)
    _declared[kind, name] = made
    return made


def _build(kind: type[T], name: str, told: Mapping[str, Any]) -> T:
    known = {f.name for f in fields(kind)} - {"name"}
    for key in told:
        if key not in known:
            raise unknown(f"attribute of a {kind.kind[0]}", key, known)
    for value in told.get("sums", ()):
        if value not in TOKEN_SUMS:
            raise unknown(f"one of sums of criterion {name!r}", value, TOKEN_SUMS)
    function = told.get("score") or told["fit"]
    if kind is Criterion:
        told = {**_reads(function), **told}
    first_line = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return kind(name=name, **{"summary": first_line, **told})


def _reads(function: Callable[..., Any]) -> dict[str, Any]:
    """What a scoring function reads, as far as its arguments' names tell."""
    taken = inspect.signature(function).parameters
    sums = {"sums": TOKEN_SUMS} if "sums" in taken else {}
    state = "residual" if "states" in taken else "none"
    options = ANY_OPTION if "options" in taken else ()
    return {"state": state, "loss": "loss" in taken, "parameters": options, **sums}


def criterion_names() -> tuple[str, ...]:
    """All criteria that can be asked for by a plain name; none of them is imported."""
    return _names(Criterion)


def criteria() -> dict[str, Criterion]:
    """Every criterion by name; those that cannot be imported are left out and named in `problems`."""
    return _working(Criterion)


def get(name: str) -> Criterion:
    """The criterion of that name, or at "package.module:name" or "file.py:name".

    "reverse:NAME" drops first what NAME would keep longest.

    Raises:
        OptionError: there is none, or what is there is no criterion.
    """
    turned = name.removeprefix(REVERSE)
    if turned == name:
        return _find(Criterion, name)
    if turned == DENSE.name or (not is_reference(turned) and turned not in criterion_names()):
        raise unknown("criterion", name, criterion_names())
    found = _find(Criterion, turned)
    one_pass = {**found.defaults, "trials": 0}  # whose search would turn it round again
    return replace(found, name=name, reversed=True, defaults=one_pass)


def is_reference(name: str) -> bool:
    """Whether it names a function by its module or file, whose code is run to find it."""
    return ":" in name.removeprefix(REVERSE)


def by_plain_name(name: str) -> Criterion | None:
    """The same for a name from a plan, which anybody may have written: None if there is none.

    None as well for a reference, whose code is not run for that.
    """
    if is_reference(name):
        return None
    try:
        return get(name)
    except OptionError:
        return None


def scoring_names() -> tuple[str, ...]:
    """The same without the dense reference."""
    return tuple(name for name in criterion_names() if name != DENSE.name)


def repair_names() -> tuple[str, ...]:
    """All repairs that can be asked for by a plain name; none of them is imported."""
    return _names(Repair)


def repairs() -> dict[str, Repair]:
    """Every repair by name; as for `criteria`."""
    return _working(Repair)


def get_repair(name: str) -> Repair:
    """The repair of that name; as for `get`."""
    return _find(Repair, name)


def problems(kind: type[T]) -> Iterator[str]:
    """A sentence for every criterion (or repair) that is declared somewhere and cannot be used."""
    what, table = kind.kind
    hidden = entry_points(table).keys() & declarations()[table].keys()
    others = [e for name, entries in entry_points(table).items() if name not in hidden for e in entries]
    own = set(_names(kind)) - {entry.name for entry in others}
    looks: list[Callable[[], T]] = [partial(_find, kind, name) for name in sorted(own)]
    looks += [partial(_of_package, kind, entry) for entry in others]
    for look in looks:
        try:
            look()
        except TopopruneError as error:
            yield str(error)
    for name in hidden:
        yield f"{what} {name!r} of another package is hidden by that of {PACKAGE}"


def _names(kind: type[T]) -> tuple[str, ...]:
    table: str = kind.kind[1]
    made: list[str] = [name for of, name in _declared if of is kind]
    return tuple(dict.fromkeys([*declarations()[table], *made, *entry_points(table)]))


def _working(kind: type[T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name in _names(kind):
        try:
            found[name] = _find(kind, name)
        except TopopruneError:
            continue
    return found


def _find(kind: type[T], name: str) -> T:
    what, table = kind.kind
    if name in declarations()[table]:
        return _at(kind, name, declarations()[table][name])
    if (kind, name) in _declared:
        found: T = _declared[kind, name]
        return found
    if is_reference(name):
        return _at(kind, name, name)
    broken = []
    for entry in entry_points(table).get(name, ()):
        try:
            return _of_package(kind, entry)
        except TopopruneError as error:
            broken.append(error)
    raise broken[0] if broken else unknown(what, name, _names(kind))


def _of_package(kind: type[T], entry: importlib.metadata.EntryPoint) -> T:
    return _at(kind, entry.name, entry.value, f"{kind.kind[0]} {shown(entry.name)} {declared_by(entry)}")


def declared_by(entry: importlib.metadata.EntryPoint) -> str:
    """Whose entry point that is, and where it points."""
    package = entry.dist.name if entry.dist else "another package"
    return f"of {package} is {shown(entry.value)}"


def _at(kind: type[T], name: str, place: str, what: str = "") -> T:
    """What is at "module:name"; a plain function is a criterion with the common defaults."""
    what = what or f"{kind.kind[0]} is {shown(name)}"
    value = load(place, what)
    if isinstance(value, kind):
        return replace(value, name=name)
    if callable(value) and not isinstance(value, (type, Criterion, Repair)):
        return _build(kind, name, {"score" if kind is Criterion else "fit": value})
    raise OptionError(f"{what}, which is a {type(value).__name__}; allowed: a function or a {kind.__name__}")


@cache
def entry_points(table: str) -> dict[str, list[importlib.metadata.EntryPoint]]:
    """Those of other packages for a table of plugin.toml, by name, of which the first that works counts."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=f"{PACKAGE}.{table}"):
        found.setdefault(entry.name, []).append(entry)
    return found


@cache
def declarations() -> dict[str, Any]:
    """plugin.toml as a dictionary: the tables tasks, models, criteria, repairs and families.

    Raises:
        InputError: it is not valid TOML, or a table is missing.
    """
    path = shared_path("plugin.toml")
    data = files.read_toml(path)
    for table in ("tasks", "models", "criteria", "repairs", "families"):
        if not data.get(table):
            raise InputError(
                f"{path} declares no {table}; allowed: a table [{table}] with at least one entry"
            )
    return data
