"""Schema of ``cohort.yaml``: the role of each column of the user's table.

Values are text, like the cells of a table; ``equigen.config.read_yaml`` reads scalars without conversion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from equigen.cohort.prompts import Prompt, prompt_columns, unknown_names, validate_prompt
from equigen.cohort.tables.values import UNKNOWN_WORDS, unknown_words
from equigen.config import check_keys
from equigen.errors import suggestion

SPLITS = ("train", "val", "test")
RESERVED_LEVELS = frozenset({"*", "gap", "es", "worst", "unknown"})
_WHOLE_NUMBER = re.compile(r"^([+-]?\d+)\.0+$")


def normalize_cell(value: str) -> str:
    """Return a cell's text without outer blanks, and without the ``.0`` that a float column adds to an integer.

    >>> normalize_cell(" 3.0 ")
    '3'
    """
    text = value.strip()
    match = _WHOLE_NUMBER.match(text)
    return match.group(1) if match else text


def _text(value: object) -> object:
    """Convert a scalar to text; raises ValueError for a Boolean or null, whose spelling is lost."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no text: write it in quotes, as the table spells it")
    return str(value) if isinstance(value, int | float) else value


def _names(value: object) -> object:
    """Normalise the keys of a mapping of raw value to name; a list is returned unchanged."""
    if isinstance(value, Mapping):
        return {normalize_cell(str(_text(key))): item for key, item in value.items()}
    return value


Text = Annotated[str, BeforeValidator(_text)]
Levels = Annotated[list[Text] | dict[str, Text], BeforeValidator(_names)]


class _Strict(BaseModel):
    """Base of immutable mappings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageRole(_Strict):
    """Path of a row's image: ``root / folder / (column's value + suffix)``.

    ``folders`` are searched in order (for data sets with several image folders). Instead of
    ``column`` a ``template`` may build the path from several columns: ``patches/{patient}/{slide}.png``.

    Images in tar shards (WebDataset): ``image: {column: file, shards: "shards/*.tar"}``, a pattern below ``root``. A
    cell with ``suffix`` names a member (``000123.jpg``); where several shards have one of that name, with its shard in
    front (``000007.tar/000123.jpg``). Images in a folder that the library ``datasets`` saved: ``table`` names the
    folder, its plain columns are the table, and ``column`` is a column of images; nothing else is given here.

    ``root`` may be a link. A folder below it that is a link out of it is refused unless ``links`` is true.
    """

    column: Text | None = None
    template: Text | None = None
    root: Text = "."
    folders: list[Text] = Field(default=["."], min_length=1)
    suffix: Text = ""
    shards: Text | None = None
    links: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> ImageRole:
        if (self.column is None) == (self.template is None):
            raise ValueError("give either 'column' or 'template'")
        if self.shards is not None and self.folders != ["."]:
            raise ValueError("give either 'folders' or 'shards'; a pattern of shards may name folders itself")
        return self

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns that form the path."""
        if self.column is not None:
            return [self.column]
        return [name for _, name, _, _ in Formatter().parse(self.template or "") if name is not None]


class PatientRole(_Strict):
    """Column of the patient, who may be in one split only; ``pattern`` extracts the id from a longer text.

    The pattern is a regular expression; its first group, or the whole match, is the patient.
    """

    column: Text
    pattern: Text | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value


class SplitRole(_Strict):
    """Fractions and a seed, or a column; ``ood`` lists the sites kept for the out-of-distribution test."""

    fractions: dict[Literal["train", "val", "test"], float] | None = None
    seed: int = 0
    column: Text | None = None
    values: Annotated[dict[str, Literal["train", "val", "test"]] | None, BeforeValidator(_names)] = None
    ood: list[Text] = []

    @model_validator(mode="after")
    def _one_way(self) -> SplitRole:
        if self.column is not None and self.fractions is not None:
            raise ValueError("give either 'fractions' or 'column', not both")
        if self.values is not None and self.column is None:
            raise ValueError("'values' needs 'column'")
        if self.fractions is not None:
            shares = list(self.fractions.values())
            if any(not 0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
                raise ValueError("fractions must lie in 0 to 1 and sum to 1")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of patients for each split; 0.7, 0.1 and 0.2 by default."""
        fractions = self.fractions if self.fractions is not None else {"train": 0.7, "val": 0.1, "test": 0.2}
        return {name: float(fractions.get(name, 0.0)) for name in SPLITS}  # type: ignore[call-overload]


def _check_names(names: Iterable[str]) -> None:
    """Raise ValueError for level names that are reserved in result tables."""
    for name in names:
        if not name.strip() or name in RESERVED_LEVELS or "|" in name:
            raise ValueError(f"'{name}' cannot be a level: it is empty, reserved or holds '|'; name it otherwise")


class LabelRole(_Strict):
    """One label: its kind, its column and its levels (in order; binary: negative first).

    ``levels`` lists raw values, or maps raw values to names (several raw values may share a name).
    Multilabel cells hold findings between ``separator``; those in ``none`` mean that nothing was found. A
    finding that is not listed is an error unless ``others: ignore``.
    """

    kind: Literal["binary", "multiclass", "multilabel"]
    column: Text
    levels: Levels | None = None
    high_risk: list[Text] = []
    separator: Text = "|"
    none: list[Text] = ["No Finding"]
    others: Literal["error", "ignore"] = "error"

    @model_validator(mode="after")
    def _levels_fit(self) -> LabelRole:
        names = level_names(self.levels)
        _check_names(names)
        if self.kind == "binary" and self.levels is not None and len(names) != 2:
            raise ValueError(f"a binary label has two levels [negative, positive], not {len(names)}")
        if self.levels is not None and len(names) < 2 and self.kind == "multiclass":
            raise ValueError("a multiclass label has at least two levels")
        for risk in self.high_risk:
            if self.levels is not None and risk not in names:
                raise ValueError(f"high_risk names the unknown level '{risk}'; {suggestion(risk, names)}")
        if not self.separator:
            raise ValueError("separator is empty")
        return self


class AttributeRole(_Strict):
    """One patient attribute: levels (list or mapping), or a number cut into ``bins``.

    Bin k is ``[bins[k], bins[k+1])``; the last one includes its upper end. Without ``names`` bins are named
    by their edges.
    """

    column: Text
    levels: Levels | None = None
    bins: list[float] | None = None
    names: list[Text] | None = None

    @model_validator(mode="after")
    def _bins_fit(self) -> AttributeRole:
        _check_names([*level_names(self.levels), *(self.names or [])])
        if self.bins is None:
            if self.names is not None:
                raise ValueError("'names' needs 'bins'; names of levels go into 'levels'")
            return self
        if self.levels is not None:
            raise ValueError("give either 'levels' or 'bins', not both")
        if len(self.bins) < 2 or any(low >= high for low, high in pairwise(self.bins)):
            raise ValueError("bins must be at least two rising numbers")
        if self.names is not None and len(set(self.names)) != len(self.bins) - 1:
            raise ValueError(f"{len(self.bins)} bin edges need {len(self.bins) - 1} different names")
        return self

    @property
    def bin_names(self) -> list[str]:
        """Name of each bin."""
        edges = self.bins or []
        return self.names or [f"{low:g} to {high:g}" for low, high in pairwise(edges)]


def _patient_role(value: object) -> object:
    """Expand ``patient: patient_id`` to ``patient: {column: patient_id}``."""
    return value if value is None or isinstance(value, Mapping | PatientRole) else {"column": value}


class CohortSpec(_Strict):
    """The roles of a table's columns; SYSTEM.md shows one in full.

    ``table`` is a csv, tsv or Parquet file, or a folder that the library ``datasets`` saved. Any column may be
    ``@npz:KEY`` or ``@json:KEY``, which are read from the images' files (``equigen.cohort.images.metadata``).
    ``missing`` adds to the texts that always mean a missing value (``equigen.cohort.tables.values``).
    """

    name: Text = Field(pattern=r"^[\w][\w .\-]*$")
    table: Text
    image: ImageRole
    patient: Annotated[PatientRole | None, BeforeValidator(_patient_role)]
    site: Text | None = None
    split: SplitRole = SplitRole()
    labels: dict[str, LabelRole] = {}
    attributes: dict[str, AttributeRole] = {}
    missing: list[Text] = list(UNKNOWN_WORDS)
    prompt: Annotated[Prompt, BeforeValidator(partial(validate_prompt, text=_text))] = None
    phantom: bool = False

    @model_validator(mode="after")
    def _names_fit(self) -> CohortSpec:
        for name in [*self.labels, *self.attributes]:
            if not name.isprintable() or name != name.strip() or name in {"", "*"}:
                raise ValueError(
                    f"{name!r} cannot name a label or attribute: use characters that can be seen, without outer blanks"
                )
        shared = set(self.labels) & set(self.attributes)
        if shared:
            raise ValueError(f"'{sorted(shared)[0]}' is both a label and an attribute; rename one")
        if self.split.ood and self.site is None:
            raise ValueError("split.ood lists sites, so 'site' must name a column")
        names = [*self.labels, *self.attributes]
        for field in unknown_names(self.prompt, names):
            raise ValueError(f"prompt uses the unknown name {{{field}}}; {suggestion(field, names)}")
        return self

    @property
    def missing_codes(self) -> frozenset[str]:
        """Texts that mean a missing value in this table, for ``means_unknown``."""
        return unknown_words([*UNKNOWN_WORDS, *(normalize_cell(word) for word in self.missing)])

    def columns(self) -> list[tuple[str, str]]:
        """Return every (role, column of the table) of this specification."""
        roles = [("image", column) for column in self.image.columns]
        roles += [("patient", self.patient.column)] if self.patient is not None else []
        roles += [("site", self.site)] if self.site is not None else []
        roles += [("split", self.split.column)] if self.split.column is not None else []
        roles += [("prompt", caption) for caption in prompt_columns(self.prompt)]
        roles += [(f"labels.{name}", role.column) for name, role in self.labels.items()]
        return roles + [(f"attributes.{name}", role.column) for name, role in self.attributes.items()]


def level_names(levels: list[str] | dict[str, str] | None) -> list[str]:
    """Return the distinct names of levels in order.

    >>> level_names({"0": "no", "1": "yes", "-1": "no"})
    ['no', 'yes']
    """
    if levels is None:
        return []
    return list(dict.fromkeys(levels.values() if isinstance(levels, dict) else levels))


def parse_spec(values: Mapping[str, Any], source: str) -> CohortSpec:
    """Check a mapping against the schema of ``cohort.yaml``.

    Raises:
        InputError: with every unknown, missing and ill-typed key, each with ``source`` and a hint.

    """
    return check_keys(CohortSpec, values, source, "The cohort specification has errors.")
