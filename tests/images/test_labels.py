"""Names of classes."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import class_names, decode_predictions, known_of, labels_of

TFDS = Path(tfds.__file__).parent

# Class numbers, WordNet ids and names as people know them (Keras Applications' documentation,
# WordNet, the ILSVRC 2012 development kit): none of them comes from the file.
KNOWN = [
    (0, "n01440764", "tench"),
    (1, "n01443537", "goldfish"),
    (88, "n01818515", "macaw"),
    (134, "n02012849", "crane bird"),
    (207, "n02099601", "golden retriever"),
    (281, "n02123045", "tabby"),
    (291, "n02129165", "lion"),
    (340, "n02391049", "zebra"),
    (386, "n02504458", "African elephant"),
    (404, "n02690373", "airliner"),
    (517, "n03126707", "crane"),
    (638, "n03710637", "maillot"),
    (779, "n04146614", "school bus"),
    (963, "n07873807", "pizza"),
    (985, "n11939491", "daisy"),
    (999, "n15075141", "toilet tissue"),
]


@pytest.mark.parametrize(("number", "wnid", "name"), KNOWN)
def test_imagenets_classes_are_known(number, wnid, name):
    scores = np.zeros((1, 1000))
    scores[0, number] = 0.75
    assert decode_predictions(scores, top=1) == [[(wnid, name, 0.75)]]


def test_imagenets_ids_are_tensorflow_datasets():
    theirs = (TFDS / "datasets" / "imagenet2012" / "labels.txt").read_text().split()
    (ours,) = decode_predictions(-np.arange(1000.0)[None], top=1000)
    assert [prediction.id for prediction in ours] == theirs == sorted(set(theirs))
    assert len(set(class_names("imagenet2012"))) == 1000


@pytest.mark.parametrize(
    ("number", "name"), [(0, "airplane"), (3, "cat"), (5, "dog"), (8, "ship"), (9, "truck")]
)
def test_cifars_classes_are_known(number, name):
    (first,) = decode_predictions(np.eye(10)[[number]], data="cifar10", top=1)
    assert first == [(name, name, 1.0)]
    assert len(set(class_names("cifar10"))) == 10


def test_the_highest_come_first_and_as_many_as_asked_for():
    scores = np.zeros((2, 1000), "float32")
    scores[0, [7, 5, 900]] = [0.5, 0.25, 0.125]
    scores[1, :] = -np.arange(1000)  # logits
    first, second = keras_resnet.decode_predictions(scores)
    assert [prediction.name for prediction in first[:3]] == [
        class_names("imagenet2012")[index] for index in (7, 5, 900)
    ]
    assert [prediction.probability for prediction in second] == [0, -1, -2, -3, -4]
    assert len(first) == 5
    wnid, name, probability = first[0]  # as Keras Applications' tuples are taken apart
    assert (wnid, name, probability) == ("n01514668", "cock", 0.5)
    assert len(decode_predictions(np.eye(10), top=99, data="cifar10")[0]) == 10


@pytest.mark.parametrize("shape", [(2, 10), (1000,), (1, 1000, 1)])
def test_other_numbers_of_classes_are_refused(shape):
    with pytest.raises(UserError, match=r"\(batch, 1000\).*'cifar10' \(10 classes\)"):
        decode_predictions(np.zeros(shape))


def test_other_data_are_refused():
    with pytest.raises(UserError, match="Did you mean 'cifar10'"):
        decode_predictions(np.zeros((1, 10)), data="cifar100")
    with pytest.raises(UserError, match="top"):
        decode_predictions(np.zeros((1, 1000)), top=0)


# The model's own ----------------------------------------------------------------------------------


def test_decode_predictions_takes_a_model_with_weights_of_the_catalog():
    model = keras_resnet.ResNet8(weights="cifar10", name="mine")
    scores = np.eye(10)[[3]]
    expected = [[("cat", "cat", 1.0)]]
    assert decode_predictions(scores, model, top=1) == expected
    assert decode_predictions(scores, keras_resnet.ResNet8(weights="cifar10"), 1) == expected
    inside = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    assert decode_predictions(scores, model=inside, top=1) == expected


def test_a_run_and_an_export_know_their_classes(tmp_path):
    (tmp_path / "labels.txt").write_text("no\nyes\n")
    (tmp_path / "model.keras").touch()
    for model in (tmp_path, str(tmp_path), tmp_path / "model.keras"):
        assert decode_predictions([[0.25, 0.75]], model, top=1) == [[("yes", "yes", 0.75)]]
    with pytest.raises(UserError, match=r"There is no labels\.txt for runs/absent"):
        decode_predictions([[0.25, 0.75]], "runs/absent")


def test_a_model_of_unknown_classes_says_what_to_give():
    # Weights tell a model's classes. All tests begin with one seed, and another test may have named
    # the classes of the first network that it built.
    keras.utils.set_random_seed(112)
    untrained = keras_resnet.ResNet8(weights=None)
    message = r"classes of 'resnet8' are not known.*data='cifar10' \(10 classes"
    with pytest.raises(UserError, match=message):
        decode_predictions(np.eye(10), untrained)
    other_head = keras_resnet.ResNet8(weights="cifar10", classes=3)
    with pytest.raises(UserError, match="The classes of 'resnet8' are not known"):
        decode_predictions(np.eye(3), other_head)
    with pytest.raises(UserError, match="not both"):
        decode_predictions(np.eye(10), untrained, data="cifar10")


def test_keras_calling_form_stays():
    scores = np.eye(1000)[[0]]
    assert len(decode_predictions(scores, 3)[0]) == len(decode_predictions(scores, top=3)[0]) == 3


# Trained models -----------------------------------------------------------------------------------


@pytest.fixture
def trained():
    """Weights of the catalog that lie in the package."""
    return keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)


def test_a_model_with_weights_of_the_catalog_knows_its_classes(trained, tmp_path):
    names = class_names("cifar10")
    assert labels_of(trained) == names
    assert known_of(trained).crop == SingleCrop(32, 32)
    trained.save(tmp_path / "m.keras")
    for same in (
        keras_resnet.to_stock(trained),
        keras.models.load_model(tmp_path / "m.keras"),
        keras.Model(trained.input, trained.get_layer("head").output),  # logits
    ):
        assert labels_of(same) == names


def test_only_the_trained_classifier_has_names(trained):
    untrained = keras_resnet.ResNet8(include_preprocessing=True)
    other = keras_resnet.ResNet8(weights="cifar10", classes=7)
    body = keras_resnet.ResNet8(weights="cifar10", include_top=False, pooling="avg")
    assert [labels_of(model) for model in (untrained, other, body)] == [None] * 3
    assert labels_of(trained) is not None
    # Trained on ten classes of one's own, it says others.
    trained.compile("sgd", "sparse_categorical_crossentropy")
    trained.fit(np.zeros((2, 32, 32, 3), "uint8"), np.zeros(2), verbose=0)
    assert labels_of(trained) is None


def test_a_labels_txt_beside_the_weights_is_theirs(trained, tmp_path):
    trained.layers[-2].bias.assign_add(np.ones(10))  # no weights of the catalog
    trained.save_weights(tmp_path / "mine.weights.h5")
    arguments = {"weights": tmp_path / "mine.weights.h5", "classes": 10}
    assert labels_of(keras_resnet.ResNet8(**arguments)) is None
    (tmp_path / "labels.txt").write_text("".join(f"bird {n}\n" for n in range(10)))
    assert labels_of(keras_resnet.ResNet8(**arguments))[3] == "bird 3"


def test_other_outputs_than_the_classifiers_have_no_names(trained):
    some = keras.Model(trained.input, trained.output[:, :3])
    turned = keras.Model(trained.input, trained.output[:, ::-1])
    assert labels_of(some) is labels_of(turned) is None
