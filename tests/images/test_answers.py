"""How outputs are read: one notion for a softmax, one sigmoid, several sigmoids and logits."""

import numpy as np
import pytest

from keras_resnet.errors import UserError
from keras_resnet.images.answers import (
    Answers,
    agreed,
    are_probabilities,
    names_of,
    numbered,
    told_by,
)

SIGMOID = np.array([[0.9], [0.2], [0.5]], "float32")
LOGIT = np.array([[np.log(9)], [np.log(0.25)], [0.0]], "float32")  # of the same probabilities
TAGS = np.array([[0.9, 0.7, 0.1], [0.2, 0.3, 0.4]], "float32")


@pytest.mark.parametrize(("activation", "outputs"), [("sigmoid", SIGMOID), ("linear", LOGIT)])
def test_one_output_tells_two_classes_apart(activation, outputs):
    answers = Answers(activation, 1)
    assert answers.classes == 2
    np.testing.assert_allclose(  # float32's own rounding
        answers.probabilities(outputs), [[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], atol=1e-7
    )
    assert answers.decisions(outputs).tolist() == [1, 0, 0]  # over 1/2, as Keras' accuracy
    assert answers.accuracy(outputs, np.array([1, 1, 0])) == pytest.approx(2 / 3)
    np.testing.assert_allclose(answers.logits(outputs), LOGIT, atol=1e-6)


def test_large_logits_do_not_overflow():
    with np.errstate(all="raise"):
        both = Answers("linear", 1).probabilities(np.array([[-1e4], [1e4]], "float32"))
    assert both.tolist() == [[1, 0], [0, 1]]


def test_several_sigmoids_are_answers_of_their_own():
    answers = Answers("sigmoid", 3)
    assert answers.independent
    assert answers.probabilities(TAGS) is TAGS  # and no softmax after them
    assert answers.decisions(TAGS).tolist() == [[True, True, False], [False, False, False]]
    truth = np.array([[1, 0, 0], [0, 0, 0]])
    assert answers.accuracy(TAGS, truth) == pytest.approx(5 / 6)
    assert answers.accuracy(TAGS, np.array([0, 2])) == 1  # trained on one class an image


def test_agreement_of_one_sigmoid_is_not_true_by_construction():
    answers, expected = Answers("sigmoid", 1), np.array([[0.9], [0.1], [0.8], [0.2]])
    turned = 1 - expected
    assert answers.same(turned, expected).mean() == 0
    assert answers.same_up_to_ties(turned, expected, 1 / 256).mean() == 0
    near = np.array([[0.501], [0.499], [0.49], [0.51]])
    tied = answers.same_up_to_ties(1 - near, near, 1 / 256)
    assert tied.tolist() == [True, True, False, False]


def test_agreement_excuses_ties_and_nothing_else():
    answers = Answers("softmax", 3)
    outputs, expected = np.array([[0.5, 0.502, 0.0]]), np.array([[0.502, 0.5, 0.0]])
    assert answers.same_up_to_ties(outputs, expected, step=1 / 256).all()
    assert not answers.same_up_to_ties(outputs, expected, step=0.0).any()
    flat, other = 1e-3 + 1e-4 * np.random.default_rng(0).random((2, 200, 1000))
    tied = Answers("softmax", 1000).same_up_to_ties(other, flat, step=1 / 256)
    assert tied.mean() < 0.25  # a tenth of the classes is "tied"


def test_what_comes_out_tells_where_the_graph_does_not():
    logits = np.array([[1.0, 2.0, -1.0]], "float32")
    softmax = np.exp(logits) / np.exp(logits).sum()
    assert told_by(softmax) == "softmax"
    assert told_by(logits) == told_by(LOGIT) == "linear"
    assert told_by(TAGS) == told_by(SIGMOID) == "sigmoid"
    assert told_by(np.ones((4, 1))) == "sigmoid"  # never a softmax of one


def test_are_probabilities():
    coarse = np.round(np.full((2, 100), 0.01) * 256) / 256  # sums to 1.17
    assert are_probabilities(coarse, step=1 / 256)
    assert not are_probabilities(coarse)


def test_names():
    assert names_of(["animal"], 1) == ("not animal", "animal")
    assert names_of(["thing", "animal"], 1) == ("thing", "animal")
    assert names_of(None, 1) is None
    assert numbered(None, 2) == ("class 0", "class 1")
    with pytest.raises(UserError, match=r"3 class names for a model with one output, .* 1 or 2"):
        names_of("abc", 1)
    with pytest.raises(UserError, match="2 class names for a model with 3 classes"):
        names_of("ab", 3)


def test_what_is_said_may_not_contradict_the_graph():
    assert agreed(None, "softmax") == agreed("softmax", None) == "softmax"
    said = r"activation='sigmoid' .* ends in 'linear', as its graph shows\. Remove activation"
    with pytest.raises(UserError, match=said):
        agreed("sigmoid", "linear")
    with pytest.raises(UserError, match="one of softmax, sigmoid, linear; received 'relu'"):
        agreed("relu", None)
