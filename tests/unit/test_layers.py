"""Imports go down the map of docs/architecture.md only."""

import ast
import re

import tiny

LIBRARY = "speechbrain_ssl"
#: Name of the last layer: the modules beside the packages.
MODULES = "*.py"


def layers():
    """Packages of the library in the order of the map."""
    text = (tiny.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| (`{LIBRARY}/[^|]*) \|", text, re.M)
    names = re.findall(r"`([^`]+)`", " ".join(rows))
    return [n.removeprefix(f"{LIBRARY}/").removesuffix("/") for n in names]


def imported(tree):
    """What a module imports of the library, as dotted names without it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == LIBRARY:
                yield rest


def crossings(folder, order):
    """Imports from one layer into another.

    Returns
    -------
    list of tuple
        Path, imported name, and how many layers it lies further down.
    """
    found = []
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder)
        own = place.parts[0] if len(place.parts) > 1 else MODULES
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            other = name.split(".")[0]
            other = other if other in order else MODULES
            step = order.index(other) - order.index(own)
            if step:
                found.append((place.as_posix(), name, step))
    return found


def test_every_package_is_in_the_list():
    packages = {
        path.parent.name for path in (tiny.ROOT / LIBRARY).glob("*/__init__.py")
    }
    order = layers()
    assert sorted(order) == sorted({*packages, MODULES})
    assert order[-1] == MODULES


def test_imports_go_down():
    found = crossings(tiny.ROOT / LIBRARY, layers())
    assert len(found) > 100
    assert [each for each in found if each[-1] < 0] == []


def test_an_import_upwards_is_seen(tmp_path):
    """Also one within a function, and of a package itself."""
    order = ["brains", "data", MODULES]
    for name in order[:2]:
        (tmp_path / name).mkdir()
    text = f"from {LIBRARY}.data import crops\nimport torch\n"
    (tmp_path / "brains" / "a.py").write_text(text)
    text = f"def f():\n    import {LIBRARY}.brains.a\n"
    (tmp_path / "data" / "b.py").write_text(text)
    text = f"from {LIBRARY} import data, errors\n"
    (tmp_path / "c.py").write_text(text)
    assert crossings(tmp_path, order) == [
        ("brains/a.py", "data.crops", 1),
        ("c.py", "data", -1),
        ("data/b.py", "brains.a", -1),
    ]
