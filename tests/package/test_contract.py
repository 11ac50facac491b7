"""What users lean on is what it was before the modules moved, but for what is named here."""

from golden import contract

_ABLATIONS = (
    "BN_After_Add",
    "Constant_Scaling",
    "Conv_Shortcut",
    "Dropout_Shortcut",
    "Exclusive_Gating",
    "ReLU_Before_Add",
    "ReLU_Only_Preact",
    "Shortcut_Only_Gating",
)
# What may differ, and why. A line goes when contract.json is written anew without it.
ALLOWED = {
    **{
        f"keras_resnet.ResNet{depth}_{name}": "an ablation; create_model has it by registry name"
        for depth in (20, 56, 110, 164)
        for name in _ABLATIONS
    },
    **{
        f"keras_resnet.{name}": "a network for tests; create_model has it by registry name"
        for name in ("TestResNet", "TestResNetV2", "TestSEResNeXtD")
    },
    "keras_resnet.export:manifest.read_reference": "in export.reference, beside what writes it",
    "keras_resnet.export:runtimes.KerasRuntime": "in export.runtimes.keras; on no page before",
    "keras_resnet.export:runtimes.load_keras": "in export.runtimes.keras; on no page before",
    "keras_resnet.export:runtimes.open_file": "in export.runtimes.open; on no page before",
    "keras_resnet.labels:class_names": "as an attribute, keras_resnet.labels.class_names, it stays",
    "keras_resnet.labels:decode_predictions": "keras_resnet.decode_predictions; attribute as above",
}


def _difference(kept, found):
    """A line for each name that is gone (-) or new (+); a changed one is both."""
    lines = []
    for kind in sorted(kept | found):
        before, after = set(kept.get(kind, ())), set(found.get(kind, ()))
        lines += [f"- {kind}: {name}" for name in sorted(before - after) if name not in ALLOWED]
        lines += [f"+ {kind}: {name}" for name in sorted(after - before)]
    return lines


def test_what_users_lean_on_is_what_it_was():
    difference = _difference(contract.load(), contract.collect())
    meant = "If all of this is meant: python tests/golden/contract.py"
    assert not difference, "\n".join(["", *difference, meant])


def test_every_allowed_difference_is_one_of_a_kept_name():
    assert set(ALLOWED) <= {name for names in contract.load().values() for name in names}


def test_a_name_that_goes_a_changed_default_and_a_new_key_are_seen():
    kept = {"names": ["keras_resnet.build", *ALLOWED], "config keys": ["data.name = 'cifar10'"]}
    found = {"names": [], "config keys": ["data.name = 'digits'"], "paths": ["keras_resnet:new"]}
    assert _difference(kept, found) == [
        "- config keys: data.name = 'cifar10'",
        "+ config keys: data.name = 'digits'",
        "- names: keras_resnet.build",
        "+ paths: keras_resnet:new",
    ]
