"""Simple Sigma rules as Flink SQL: one predicate a rule, over a typed row of what the rules ask for.

Simple is: single events, fields with plain values or null, `startswith`, `endswith`, `contains`, `exists`, `re`, `lt`,
`gt`, `lte`, `gte`, `fieldref`, and a condition of names, `and`, `or`, `not`. What is not (correlations, networks, fields
of lists, keywords) is left out, which spares Flink work. Sigma ignores case; these predicates do not, which spares it more: the events are
written as the rules are.
"""

import glob
import os
import re

import yaml

# Which rows a logsource means, by the column `source`; rules of other products read other streams.
SOURCES = {
    ("aws", "cloudtrail"): "cloudtrail",
    ("okta", "okta"): "okta",
    ("github", "audit"): "github",
    ("kubernetes", "audit"): "kubernetes",
    ("companyos", None): "platform",
}
NUMBERS = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
# Fields that hold lists, or stand within lists.
LISTS = re.compile(
    r"\.items|Statement|valuesToAdd|\.volumes|\.containers|behaviors|changedAttributes|ipPermissions"
)


class NotSimple(Exception):
    pass


def literal(value) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    return "'" + str(value).replace("'", "''") + "'"


def like(value) -> str:
    return str(value).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def column(field: str) -> str:
    if field == "signal_type":
        return "signal_type"
    return "evidence." + ".".join(f"`{part}`" for part in field.split("."))


def test(name: str, value, fields: set) -> str:
    field, *modifiers = name.split("|")
    if LISTS.search(field):
        raise NotSimple(field)
    fields.add(field)
    at = column(field)
    values = value if isinstance(value, list) else [value]
    if modifiers == ["exists"]:
        return f"{at} IS {'NOT ' if value else ''}NULL"
    if not modifiers:
        tests = []
        for v in values:
            text = str(v)
            if v is None:
                tests.append(f"{at} IS NULL")
            elif isinstance(v, str) and re.search(r"[*?\\]", text):
                if "?" in text or "\\" in text:
                    raise NotSimple(text)
                tests.append(f"{at} LIKE '" + "%".join(like(p).replace("'", "''") for p in text.split("*")) + "' ESCAPE '\\'")
            else:
                tests.append(f"{at} = {literal(v)}")
    elif modifiers in (["startswith"], ["endswith"], ["contains"]):
        before = "" if modifiers == ["startswith"] else "%"
        after = "" if modifiers == ["endswith"] else "%"
        tests = [f"{at} LIKE '{before}" + like(v).replace("'", "''") + f"{after}' ESCAPE '\\'" for v in values]
    elif modifiers == ["re"]:
        tests = [f"REGEXP({at}, {literal(v)})" for v in values]
    elif modifiers == ["fieldref"]:
        fields.update(values)
        tests = [f"{at} = {column(v)}" for v in values]
    elif len(modifiers) == 1 and modifiers[0] in NUMBERS:
        tests = [f"TRY_CAST({at} AS DOUBLE) {NUMBERS[modifiers[0]]} {v}" for v in values]
    else:
        raise NotSimple("|".join(modifiers))
    return "(" + " OR ".join(tests) + ")"


def selection(value, fields: set) -> str:
    if isinstance(value, list):
        if not all(isinstance(item, dict) for item in value):
            raise NotSimple("keywords")
        return "(" + " OR ".join(selection(item, fields) for item in value) + ")"
    return "(" + " AND ".join(test(name, v, fields) for name, v in value.items()) + ")"


def predicate(rule: dict):
    """The predicate of a rule, and the fields it reads."""
    source = rule.get("logsource", {})
    source = SOURCES.get((source.get("product"), source.get("service")))
    if "correlation" in rule or source is None:
        raise NotSimple("logsource")
    fields = set()
    named = {name: selection(v, fields) for name, v in rule["detection"].items() if name != "condition"}
    words = re.findall(r"\(|\)|\w+", rule["detection"]["condition"])
    parts = []
    for word in words:
        if word in named:
            # A field that is absent makes a test false, not unknown: NOT of it must be true.
            parts.append(f"({named[word]} IS TRUE)")
        elif word in ("and", "or", "not", "(", ")"):
            parts.append(word.upper())
        else:
            raise NotSimple(word)
    return f"source = '{source}' AND ({' '.join(parts)})", fields


def row_type(fields) -> str:
    """The fields as a nested ROW of texts."""
    tree = {}
    for field in sorted(fields - {"signal_type"}):
        node = tree
        for part in field.split("."):
            node = node.setdefault(part, {})

    def of(node):
        if not node:
            return "STRING"
        return "ROW<" + ", ".join(f"`{name}` {of(inner)}" for name, inner in node.items()) + ">"

    return of(tree)


def translate(folder: str):
    """Predicates by rule id, and the type of the evidence."""
    predicates, fields = {}, set()
    for path in sorted(glob.glob(os.path.join(folder, "*.yaml"))):
        with open(path) as file:
            for rule in yaml.safe_load_all(file):
                try:
                    predicates[rule["id"]], used = predicate(rule)
                    fields |= used
                except NotSimple:
                    pass
    return dict(sorted(predicates.items())), row_type(fields)


def matched(predicates) -> str:
    """An expression for the ids of the rules that match, in order, separated by commas."""
    cases = ",\n  ".join(f"CASE WHEN {p} THEN '{rule}' END" for rule, p in predicates.items())
    return f"CONCAT_WS(',',\n  {cases})"
