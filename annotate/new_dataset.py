"""The dataset.toml that an import writes for a dataset that is new."""

from __future__ import annotations

from collections.abc import Iterable

from annotate.coco import Category
from annotate.formats.format import Done, LabelSet
from collect.definition import CollectPolicy, template
from collect.errors import UsageError
from collect.licenses import USER_SUPPLIED, allows

#: Supercategories that tools write when they have none.
_NO_SUPERCATEGORY = {"", "none", "n/a", "null"}


def check_names(found: LabelSet) -> None:
    """Refuse classes whose names no file or page could show, with their boxes."""
    bad = [category for category in found.categories if not category.name.isprintable()]
    for category in bad:
        found.complain("classes", repr(category.name), "a class name must not hold control characters or line breaks", Done.REFUSED)
    if bad:
        found.categories = [category for category in found.categories if category not in bad]
        found.rename({category.name: category.name for category in found.categories})


def number_categories(found: LabelSet, source: str) -> None:
    """Fix the class ids of a new dataset: those of the label files where all are from 1 and used once, else from 1."""
    numbers = [category.id for category in found.categories]
    if min(numbers, default=1) >= 1 and len(set(numbers)) == len(numbers):
        return
    renumbered = [Category(new, category.name, category.supercategory) for new, category in enumerate(found.categories, 1)]
    if any(numbers):  # formats without ids have nothing to mend
        pairs = ", ".join(f"{old.name} {old.id}→{new.id}" for old, new in zip(found.categories, renumbered, strict=True))
        found.complain(source, "categories", f"class ids must count from 1, each used once; renumbered: {pairs}", Done.MENDED)
    found.categories = renumbered


def definition_text(name: str, categories: list[Category], licences: Iterable[str]) -> str:
    """A commented dataset.toml with these classes, whose allow-list admits the licences of the imported images.

    Raises:
        UsageError: there are no classes.
    """
    if not categories:
        raise UsageError(f"the labels name no class, so {name} cannot be made; `boxwright init {name} --class …` first, then import")
    wanted = sorted({spdx for spdx in licences if not allows(CollectPolicy.licenses, spdx)})
    text = template(name, [(category.id, category.name) for category in categories], (*CollectPolicy.licenses, *wanted))
    lines, entries = [], iter(categories)
    for line in text.splitlines():
        if line.startswith("definition ="):
            above = next(entries).supercategory
            if above.strip().lower() not in _NO_SUPERCATEGORY:
                lines.append(f"supercategory = {_quoted(above)}")
        if line.startswith("licenses =") and USER_SUPPLIED in wanted:
            lines.append(f"# {USER_SUPPLIED}: imported without a stated licence, on the word of who imported them")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
