"""The parts of a page as data: sections of blocks; blocks of sentences, figures and tables. No HTML."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One table cell: main text, a smaller second line (``detail``), and the name of a CSS class (``mark``).

    ``mark`` is one of "" (plain), "small" (too few patients), "missing", "beyond" (outside the chance band).
    """

    text: str
    detail: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """One table row: its heading and cells; ``kind`` is "", "attribute" (spans the table) or "derived"."""

    head: str
    cells: list[Cell] = field(default_factory=list)
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first entry of ``head`` stands over the row headings."""

    caption: str
    head: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class Picture:
    """An inline SVG with its caption; the text alternative is inside the SVG."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Strip:
    """Images of one group from one source, joined into one PNG (base64), with a caption."""

    png: str
    alt: str
    width: int
    caption: str = ""


@dataclass(frozen=True)
class ImageTable:
    """A grid of images: a row per group, a column per source; ``head`` is the heading of the row labels."""

    title: str
    caption: str
    sources: list[str]
    rows: list[tuple[str, list[Strip]]]
    head: str = "group"


@dataclass(frozen=True)
class Pair:
    """A generated image and its closest training image in one PNG (base64), with a caption."""

    png: str
    alt: str
    width: int
    caption: str


@dataclass(frozen=True)
class PairStrip:
    """The closest pairs of one run."""

    title: str
    note: str
    pairs: list[Pair]


@dataclass(frozen=True)
class Block:
    """One part of a section under a heading; ``folded`` ones are closed until the reader opens them."""

    title: str
    text: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    images: list[ImageTable] = field(default_factory=list)
    pairs: list[PairStrip] = field(default_factory=list)
    terms: list[tuple[str, str, str]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)  # text and address of other pages
    code: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A section with its anchor; ``empty_text`` replaces the blocks where there are none."""

    anchor: str
    title: str
    intro: str
    blocks: list[Block]
    empty_text: str


@dataclass(frozen=True)
class Sentence:
    """One finding as a sentence, with its ``parts`` as a list below it.

    ``tone`` is "finding", "chance" (not established), "caution", "missing" or "note" (how to read them).
    """

    text: str
    tone: str
    topic: str
    parts: tuple[str, ...] = ()
