"""A plugin of pytest for scripts/s3-conformance.sh: the tests that a list names must fail, and the summary counts them by the rule that
excludes them.

The list has a line `[RULE]` before the tests of each rule. A test is named, with wildcards, or by one of its markers with `@` before it:
such are not run, since the server has nothing of their subject, and they may wait for a long time."""

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--excluded", type=Path)


def read(path):
    """The pairs of name and rule, in order."""
    rule = None
    for line in path.read_text().splitlines():
        if line.startswith("["):
            rule = line.strip("[]")
        elif line and not line.startswith("#"):
            yield line.strip(), rule


def matches(item, name):
    if name.startswith("@"):
        return item.get_closest_marker(name[1:]) is not None
    return fnmatchcase(item.originalname, name)


def pytest_collection_modifyitems(config, items):
    listed = list(read(config.getoption("excluded")))
    for item in items:
        for name, rule in listed:
            if matches(item, name):
                item.add_marker(pytest.mark.xfail(reason=rule, strict=True, run=not name.startswith("@")))
                break


def pytest_terminal_summary(terminalreporter):
    rules = Counter(report.wasxfail.removeprefix("[NOTRUN] ").removeprefix("reason: ") for report in terminalreporter.stats.get("xfailed", []))
    for rule, count in rules.most_common():
        terminalreporter.write_line(f"excluded: {count:4} {rule}")
