"""Rules that keep the package readable: names, faces of rooms, and the directions of imports."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import equigen

ROOT = Path(equigen.__file__).parent
BANNED = {
    "found", "own", "kept", "told", "asked", "made", "shown", "whole", "place", "part", "given", "taken",
    "seen", "held", "named", "placed", "said", "drawn", "known", "meant", "chosen", "wanted", "used", "left",
    "gone", "come", "done", "begun", "met", "beside", "at", "one", "other", "others", "both", "each", "such",
    "them", "those", "these", "what", "which", "who", "where", "whose", "here", "there", "now", "then", "still",
    "again", "words", "side", "sides", "how", "many", "few",
}  # fmt: skip
SHARE = 0.01  # of all assigned names and parameters
# Rooms from the ground up; a room imports those of earlier lines alone.
LAYERS = [
    ["statistics", "equity"],
    ["cohort"],
    ["latents", "fairness"],
    ["diffusion", "quality", "diagnosis"],
    ["training"],
    ["synthesis"],
    ["report"],
    ["study"],
    ["comparison"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["equigen", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def imports(tree: ast.Module) -> list[tuple[str, list[str]]]:
    """Imports from equigen that are executed: the module, and the names that are taken from it."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing = {id(node) for block in blocks for node in ast.walk(block)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in typing]
    return [
        (node.module, [alias.name for alias in node.names])
        for node in found
        if node.module and node.module.split(".")[0] == "equigen"
    ]


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else ""


def assigned_names(tree: ast.Module) -> list[str]:
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    arguments = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return names + [name for name in arguments if name not in {"self", "cls"}]


def test_every_room_has_its_layer():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == set(LEVEL)


def test_names_are_nouns_of_the_field():
    names = [name for tree in FILES.values() for name in assigned_names(tree)]
    banned = Counter(name for name in names if name.strip("_") in BANNED)
    assert sum(banned.values()) < SHARE * len(names), banned.most_common(20)


def test_rooms_are_imported_through_their_faces():
    past = [
        f"{module_name(path)} imports {module}"
        for path, tree in FILES.items()
        for module, _ in imports(tree)
        if room_of(module) and room_of(module) != room_of(module_name(path)) and module.count(".") > 1
    ]
    assert past == []


def test_no_room_imports_one_above_it():
    upwards = [
        f"{module_name(path)} imports {module}"
        for path, tree in FILES.items()
        for module, _ in imports(tree)
        if (own := room_of(module_name(path))) != (target := room_of(module))
        and target
        and (not own or LEVEL[target] >= LEVEL[own])
        and module_name(path) not in {"equigen", "equigen.__main__"}
    ]
    assert upwards == []


def test_statistics_and_equity_know_no_room():
    for room in ("statistics", "equity"):
        known = {
            room_of(module)
            for path, tree in FILES.items()
            if room_of(module_name(path)) == room
            for module, _ in imports(tree)
        }
        assert known <= {"", room}


def test_modules_import_each_other_in_one_direction():
    modules = {module_name(path) for path in FILES}
    graph: dict[str, set[str]] = defaultdict(set)
    for path, tree in FILES.items():
        for module, names in imports(tree):
            targets = {f"{module}.{name}" for name in names} & modules or {module}
            graph[module_name(path)] |= (targets & modules) - {module_name(path)}
    state: dict[str, int] = {}
    circles = []

    def visit(module: str, trail: list[str]) -> None:
        state[module] = 1
        for target in sorted(graph[module]):
            if state.get(target) == 1:
                circles.append([*trail[trail.index(target) :], target])
            elif target not in state:
                visit(target, [*trail, target])
        state[module] = 2

    for module in sorted(modules):
        if module not in state:
            visit(module, [module])
    assert circles == [], "\n".join(" -> ".join(circle) for circle in circles)


def test_a_face_lists_no_name_of_a_file_of_its_room():
    """A file that is imported becomes an attribute of its package, and would hide a function of its name."""
    for stub in ROOT.glob("*/__init__.pyi"):
        files = {path.stem for path in stub.parent.glob("*.py")} | {path.name for path in stub.parent.iterdir()}
        names = set(re.findall(r"^from \.[\w.]+ import \w+ as (\w+)$", stub.read_text(encoding="utf-8"), re.MULTILINE))
        assert names and not names & files, (stub.parent.name, names & files)


def test_faces_open_every_name_that_they_list():
    for stub in ROOT.glob("*/__init__.pyi"):
        room = __import__(f"equigen.{stub.parent.name}", fromlist=["*"])
        for name in re.findall(r"^from \.[\w.]* import \w+ as (\w+)$", stub.read_text(encoding="utf-8"), re.MULTILINE):
            assert hasattr(room, name), f"{stub.parent.name}.{name}"
