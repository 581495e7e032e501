"""Check the size of a YAML text on its events, before any object is built from it."""

from __future__ import annotations

import yaml

MAX_CHARACTERS = 2**24
MAX_DEPTH = 40
MAX_NODES = 100_000


def check_bounds(text: str) -> None:  # noqa: C901  (one branch an event)
    """Raise ``yaml.MarkedYAMLError`` when a YAML text is too long, nested too deeply, recursive, or too large.

    Its size is the number of nodes with every alias written out, so that nested aliases
    count with their full size.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"has more than {MAX_CHARACTERS} characters")
    sizes: dict[str, int | None] = {}  # anchor -> its number of nodes; None while it is open
    stack: list[tuple[str | None, int]] = []  # open collections: (anchor, nodes before it)
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 0)
            if size is None:
                raise _path_fault(f"'*{event.anchor}' stands within what it means", event)
            nodes += size
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, nodes))
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = None
            if len(stack) > MAX_DEPTH:
                raise _path_fault(f"is nested more than {MAX_DEPTH} levels deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = stack.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if nodes > MAX_NODES:
            raise _path_fault(f"stands for more than {MAX_NODES} values", event)


def _path_fault(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type, unused-ignore]
