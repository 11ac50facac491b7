"""What users lean on stays: a name, command, key or format that goes or changes is seen."""

from golden import contract


def _difference(kept, found):
    """A line for each name that is gone (-) or new (+); a changed one is both."""
    lines = []
    for kind in sorted(kept | found):
        before, after = set(kept.get(kind, ())), set(found.get(kind, ()))
        lines += [f"- {kind}: {name}" for name in sorted(before - after)]
        lines += [f"+ {kind}: {name}" for name in sorted(after - before)]
    return lines


def test_what_users_lean_on_is_what_it_was():
    difference = _difference(contract.load(), contract.collect())
    meant = "If all of this is meant: python tests/golden/contract.py"
    assert not difference, "\n".join(["", *difference, meant])


def test_a_name_that_goes_a_changed_default_and_a_new_key_are_seen():
    kept = {"names": ["keras_resnet.build"], "config keys": ["data.name = 'cifar10'"]}
    found = {"names": [], "config keys": ["data.name = 'digits'"], "paths": ["keras_resnet:new"]}
    assert _difference(kept, found) == [
        "- config keys: data.name = 'cifar10'",
        "+ config keys: data.name = 'digits'",
        "- names: keras_resnet.build",
        "+ paths: keras_resnet:new",
    ]
