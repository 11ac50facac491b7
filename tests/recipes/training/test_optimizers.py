"""Optimizers against the papers' equations in numpy, and the learning rates they are given."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TESTS, run_python
from helpers.optimizers import NAMES, STEPS, schedule, small_loop, train_small

from keras_resnet.errors import UserError
from keras_resnet.recipes.configs.schema import OptimizerConfig, ScheduleConfig
from keras_resnet.recipes.training import optimizers, schedules
from keras_resnet.recipes.training.job import dtype_policy

# float32 against numpy's float64 over six steps: some units of the seventh digit each.
ROUNDING = 2e-6


def _rate(step):
    """What `schedule` gives, in numpy: it changes, so that its place in the equation shows."""
    return 0.1 / (1 + step)


def _start():
    """A kernel and the other variables of a network."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "gamma": (4,), "beta": (4,), "bias": (4,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def _gradients():
    rng = np.random.default_rng(1)
    return [{k: rng.normal(size=v.shape) for k, v in _start().items()} for _ in range(STEPS)]


def _run(config, weight_decay, start=None, gradients=None):
    """The variables after an update for each gradient, by name."""
    start = start or _start()
    variables = [keras.Variable(v, dtype="float32", name=k) for k, v in start.items()]
    optimizer, _ = optimizers.build(config, schedule(), weight_decay, variables)
    optimizer.build(variables)
    for step in gradients or _gradients():
        optimizer.apply([tf.constant(step[v.name], tf.float32) for v in variables], variables)
    return {v.name: v.numpy() for v in variables}


def _reference(update):
    """Run `update(weights, gradient, memory, rate, step, is_kernel)` in float64."""
    weights, memory = _start(), {name: {} for name in _start()}
    for step, gradients in enumerate(_gradients()):
        for name, g in gradients.items():
            args = (weights[name], g, memory[name], _rate(step), step + 1, name == "kernel")
            weights[name] = update(*args)
    return weights


def _assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=ROUNDING, err_msg=name)


# The equations ------------------------------------------------------------------------------------


def test_lars_is_the_papers_algorithm():
    def update(w, g, memory, rate, step, is_kernel):
        norm = np.linalg.norm
        local = 0.02 * norm(w) / (norm(g) + 0.3 * norm(w)) if is_kernel else 1.0
        decayed = g + 0.3 * w if is_kernel else g
        memory["v"] = 0.8 * memory.get("v", 0) + rate * local * decayed
        return w - memory["v"]

    config = OptimizerConfig("lars", momentum=0.8, trust=0.02)
    _assert_same(_run(config, 0.3), _reference(update))


def test_lamb_is_the_papers_algorithm():
    def update(w, g, memory, rate, step, is_kernel):
        memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
        memory["v"] = 0.95 * memory.get("v", 0) + 0.05 * g**2
        m, v = memory["m"] / (1 - 0.8**step), memory["v"] / (1 - 0.95**step)
        u = m / (np.sqrt(v) + 1e-3)
        if is_kernel:
            u = u + 0.3 * w
            u = u * np.linalg.norm(w) / np.linalg.norm(u)
        return w - rate * u

    config = OptimizerConfig("lamb", momentum=0.8, beta_2=0.95, epsilon=1e-3)
    _assert_same(_run(config, 0.3), _reference(update))


def test_adamw_is_decoupled_and_spares_all_but_kernels():
    def update(w, g, memory, rate, step, is_kernel):
        memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
        memory["v"] = 0.95 * memory.get("v", 0) + 0.05 * g**2
        m, v = memory["m"] / (1 - 0.8**step), memory["v"] / (1 - 0.95**step)
        shrunk = w * (1 - rate * 0.3) if is_kernel else w
        return shrunk - rate * m / np.sqrt(v)

    # Keras' epsilon is added before the correction of v (Kingma's "epsilon hat"): at 1e-12 it is
    # too small for the place to show.
    config = OptimizerConfig("adamw", momentum=0.8, beta_2=0.95, epsilon=1e-12)
    _assert_same(_run(config, 0.3), _reference(update))


def test_adamw_is_pytorchs():
    """Numbers of torch 2.13: five steps of torch.optim.AdamW([w], betas=(0.9, 0.95), eps=1e-8,
    weight_decay=0.05) with lr = 0.1 / (1 + t) and w.grad = [0.3, -0.2, 0.1] * (1 - 0.5 * t)."""
    golden = [0.3189958930015564, -0.8133109211921692, 1.8019410371780396]
    gradients = [{"kernel": np.array([0.3, -0.2, 0.1]) * (1 - 0.5 * t)} for t in range(5)]
    config = OptimizerConfig("adamw", beta_2=0.95, epsilon=1e-8)
    found = _run(config, 0.05, {"kernel": np.array([0.5, -1.0, 2.0])}, gradients)
    # Both in float32, and epsilon in two places of gradients of 0.1: 1e-8 / 0.1.
    np.testing.assert_allclose(found["kernel"], golden, atol=ROUNDING)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_leaves_its_decay_to_the_loop(nesterov):
    def update(w, g, memory, rate, step, is_kernel):
        memory["v"] = 0.9 * memory.get("v", 0) + rate * g
        return w - (0.9 * memory["v"] + rate * g if nesterov else memory["v"])

    config = OptimizerConfig("sgd", nesterov=nesterov)
    _assert_same(_run(config, 0.3), _reference(update))
    assert optimizers.build(config, 0.1, 0.3, [])[1] == 0.3
    assert optimizers.build(OptimizerConfig("lars"), 0.1, 0.3, [])[1] == 0.0


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_kernel_or_gradient_of_zeros_does_not_become_nan(name):
    zeros, ones = np.zeros((2, 2)), np.ones((2, 2))
    config = OptimizerConfig(name)
    for start, gradient in ((zeros, ones), (ones, zeros), (zeros, zeros)):
        found = _run(config, 0.0, {"kernel": start}, [{"kernel": gradient}] * 2)["kernel"]
        assert np.isfinite(found).all()
        # The ratio is 1, so a kernel of zeros can leave zero; without a gradient nothing moves.
        assert np.array_equal(found, start) == (not gradient.any())


def test_muon_makes_the_update_of_a_convolution_orthogonal():
    """Newton-Schulz leaves the singular values of the momentum near 1 (0.7 to 1.2, its author)."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "gamma": (4,), "bias": (4,)}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(2)]
    config = OptimizerConfig("muon", momentum=0.8, beta_2=0.95, epsilon=1e-12)
    found = _run(config, 0.3, start, gradients)
    one, two = gradients[0]["kernel"], gradients[1]["kernel"]
    weights = start["kernel"]
    for step, (gradient, memory) in enumerate(((one, one), (two, 0.8 * one + two))):
        left, _, right = np.linalg.svd(
            (gradient + 0.8 * memory).reshape(18, 4), full_matrices=False
        )
        size = 0.2 * np.sqrt(18)
        weights = weights * (1 - 0.3 * _rate(step))
        weights = weights - _rate(step) * size * (left @ right).reshape(weights.shape)
    # Each of two steps is off by at most 0.3 of a singular value, at the rates 0.1 and 0.05.
    assert np.abs(found["kernel"] - weights).max() < 0.3 * 0.15 * size
    moved = np.linalg.norm(found["kernel"] - start["kernel"])
    assert np.linalg.norm(found["kernel"] - weights) < 0.3 * moved
    # All else takes AdamW's steps; Keras' epsilon is at another place, see above.
    for name in ("gamma", "bias"):
        adam = _run(
            OptimizerConfig("adamw", momentum=0.9, beta_2=0.95, epsilon=1e-12),
            0.0,
            {name: start[name]},
            [{name: step[name]} for step in gradients],
        )
        np.testing.assert_allclose(found[name], adam[name], atol=ROUNDING)


def test_muon_in_bfloat16_is_as_orthogonal():
    """The singular values stay in the author's range; three digits of bfloat16 are enough."""
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(3, 3, 64, 32)).astype("float32")
    sizes = {}
    for precision in ("float32", "mixed_bfloat16"):
        kernel = keras.Variable(np.zeros_like(gradient), name="kernel")
        with dtype_policy(precision):
            optimizer, _ = optimizers.build(OptimizerConfig("muon"), 1.0, 0.0, [kernel])
        optimizer.apply([tf.constant(gradient)], [kernel])
        update = kernel.numpy().reshape(-1, 32) / (0.2 * np.sqrt(576))
        sizes[optimizer.matrix_dtype] = np.linalg.svd(update, compute_uv=False)
    assert sizes.keys() == {"float32", "bfloat16"}
    for found in sizes.values():
        assert 0.6 < found.min() < found.max() < 1.25
    assert not np.array_equal(*sizes.values())


def _schedule_free(decay=0.0):
    """y and x after the updates, in float64, as the paper's Algorithm 1 has them."""
    w = _start()["kernel"]
    z, x, y, second, total = w, w, w, 0.0, 0.0
    for step, gradients in enumerate(_gradients()):
        g, rate = gradients["kernel"], _rate(step)
        second = 0.95 * second + 0.05 * g**2
        z = z - rate * (g / (np.sqrt(second / (1 - 0.95 ** (step + 1))) + 1e-8) + decay * y)
        total += rate**2
        x = x + rate**2 / total * (z - x)
        y = 0.1 * z + 0.9 * x
    return y, x


def test_schedule_free_adamw_is_the_papers_algorithm():
    start, gradients = {"kernel": _start()["kernel"]}, _gradients()
    config = OptimizerConfig("schedule_free_adamw", beta_2=0.95, epsilon=1e-8)
    variable = keras.Variable(start["kernel"], dtype="float32", name="kernel")
    optimizer, _ = optimizers.build(config, schedule(), 0.3, [variable])
    optimizer.build([variable])
    for step in gradients:
        optimizer.apply([tf.constant(step["kernel"], tf.float32)], [variable])
    y, x = _schedule_free(decay=0.3)
    np.testing.assert_allclose(variable.numpy(), y, atol=ROUNDING)
    np.testing.assert_allclose(optimizer.averages([variable])[0], x, atol=ROUNDING)


def test_schedule_free_adamw_starts_anew_for_a_variable_that_was_frozen():
    """The steps of a kernel that learns from update 4 on are those of one that begins then."""
    gradients = [step["kernel"] for step in _gradients()]
    config = OptimizerConfig("schedule_free_adamw", beta_2=0.95, epsilon=1e-8)
    moved = []
    for earlier in (0, 3):
        frozen, other = (
            keras.Variable(_start()[name], dtype="float32", name=name)
            for name in ("kernel", "bias")
        )
        optimizer, _ = optimizers.build(config, 0.1, 0.0, [frozen, other])
        optimizer.build([frozen, other])
        for _ in range(earlier):
            optimizer.apply([tf.ones(other.shape)], [other])
        for gradient in gradients:
            both = [tf.constant(gradient, tf.float32), tf.ones(other.shape)]
            optimizer.apply(both, [frozen, other])
        moved.append(frozen.numpy())
    np.testing.assert_allclose(*moved, atol=ROUNDING)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_muon_decays_all_kernels_alike(decay):
    shapes = {"kernel": [(1, 1, 2, 2), (2, 2)], "bias": [(2,)]}
    *kernels, bias = (
        keras.Variable(np.ones(shape), dtype="float32", name=name)
        for name in shapes
        for shape in shapes[name]
    )
    optimizer, _ = optimizers.build(OptimizerConfig("muon"), 0.5, decay, [*kernels, bias])
    optimizer.build([*kernels, bias])
    optimizer.apply([tf.zeros(v.shape) for v in (*kernels, bias)], [*kernels, bias])
    for kernel in kernels:
        np.testing.assert_allclose(kernel.numpy(), 1 - 0.5 * decay, rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), 1)


def test_the_loop_evaluates_the_average_and_trains_on():
    loop = small_loop(tf.distribute.get_strategy(), "schedule_free_adamw")
    trained = train_small(loop)
    averages = loop.optimizer.averages(loop.variables)
    assert any(np.abs(x - y).max() > 1e-3 for x, y in zip(averages, trained, strict=True))
    with loop.evaluated_weights():
        for variable, value in zip(loop.variables, averages, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)
    for variable, value in zip(loop.variables, trained, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_kerass_own_schedule_free_adamw_is_another():
    """What the docstring claims; if this fails, Keras' may have become the paper's."""
    variable = keras.Variable(np.ones(3), dtype="float32", name="kernel")
    optimizer = keras.optimizers.ScheduleFreeAdamW(0.1, beta_2=0.95)
    for gradient in np.random.default_rng(0).normal(size=(5, 3)):
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    config = OptimizerConfig("schedule_free_adamw", beta_2=0.95, epsilon=1e-8)
    ours = keras.Variable(np.ones(3), dtype="float32", name="kernel")
    optimizer, _ = optimizers.build(config, 0.1, 0.0, [ours])
    for gradient in np.random.default_rng(0).normal(size=(5, 3)):
        optimizer.apply([tf.constant(gradient, tf.float32)], [ours])
    assert np.abs(ours.numpy() - variable.numpy()).max() > 1e-3


def test_kerass_own_lamb_is_another():
    """What the docstring claims; if this fails, Keras' may have become the paper's."""
    start, gradient = {"kernel": np.full(4, 2.0)}, {"kernel": np.array([1.0, -1.0, 1.0, -1.0])}
    ours = _run(OptimizerConfig("lamb"), 0.5, start, [gradient])["kernel"]
    variable = keras.Variable(start["kernel"], dtype="float32", name="kernel")
    keras.optimizers.Lamb(0.1, weight_decay=0.5).apply([gradient["kernel"]], [variable])
    assert np.abs(ours - variable.numpy()).max() > 0.05


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimizerConfig("lambs"), "Unknown optimizer 'lambs'. Did you mean 'lamb'"),
        (OptimizerConfig("adamw", nesterov=True), "nesterov is only for sgd"),
    ],
)
def test_bad_optimizers_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        optimizers.check(config)


# Under the loop -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    """(optimizer, weights before, weights after STEPS, a checkpoint of halfway), on one device."""
    loop = small_loop(tf.distribute.get_strategy(), request.param)
    before = train_small(loop, steps=0)
    train_small(loop, steps=STEPS // 2)
    halfway = loop.checkpoint.write(str(tmp_path_factory.mktemp("state") / request.param))
    return request.param, before, train_small(loop, STEPS - STEPS // 2, STEPS // 2), halfway


TWO_DEVICES = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from keras_resnet.recipes.training import devices
from helpers.optimizers import NAMES, small_loop, train_small

strategy = devices.strategy("cpu:2", 8)
for name in NAMES:
    np.savez(name + ".npz", *train_small(small_loop(strategy, name)))
"""


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_python(TWO_DEVICES, TESTS, cwd=folder)
    return folder


@pytest.mark.slow
def test_two_devices_compute_what_one_does(trained, two_devices):
    name, before, after, _ = trained
    with np.load(two_devices / f"{name}.npz") as several:
        for old, one, two in zip(before, after, several.values(), strict=True):
            # The sum over devices is in another order, and LAMB and AdamW divide by roots of small
            # sums; the weights moved by hundreds of times that.
            np.testing.assert_allclose(one, two, atol=1e-5)
            assert np.abs(one - old).max() > 3e-3


def test_a_resumed_run_goes_on_bit_for_bit(trained):
    name, _, after, halfway = trained
    resumed = small_loop(tf.distribute.get_strategy(), name)
    resumed.checkpoint.read(halfway).assert_consumed()
    for a, b in zip(after, train_small(resumed, STEPS - STEPS // 2, STEPS // 2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_they_come_back_from_their_config():
    rate = schedules.schedule(OptimizerConfig(), ScheduleConfig("polynomial", 0.1), 100, 1)
    for name in NAMES:
        optimizer, _ = optimizers.build(OptimizerConfig(name), rate, 0.1, [])
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()
        assert float(again.learning_rate) == float(optimizer.learning_rate)


# Schedules ----------------------------------------------------------------------------------------


def _rates(name, steps, total=1000, optimizer=None, **keys):
    optimizer = optimizer or OptimizerConfig(learning_rate=0.4)
    rate = schedules.schedule(optimizer, ScheduleConfig(name, **keys), total, 128)
    return [float(rate(step)) for step in steps]


def test_step_is_the_papers():
    rates = _rates("step", (0, 31_999, 32_000, 47_999, 48_000), 64_000)
    np.testing.assert_allclose(rates, [0.4, 0.4, 0.04, 0.04, 0.004], rtol=1e-6)


def test_step_warms_up_from_zero_or_holds():
    keys = {"warmup": 0.1, "boundaries": (0.5,)}
    rates = _rates("step", (0, 50, 99, 100, 499, 500), **keys)
    np.testing.assert_allclose(rates, [0, 0.2, 0.396, 0.4, 0.4, 0.04], rtol=1e-6)
    rates = _rates("step", (0, 99, 100), warmup_hold=0.1, **keys)
    np.testing.assert_allclose(rates, [0.04, 0.04, 0.4], rtol=1e-6)


def test_cosine_rises_and_falls_to_zero():
    rates = _rates("cosine", (0, 50, 100, 550, 1000), warmup=0.1)
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.2, 0], atol=1e-7)  # of 0.4, in float32
    assert _rates("cosine", (0,)) == pytest.approx([0.4])


def test_one_cycle_is_pytorchs():
    """Numbers of torch 2.13's OneCycleLR(optimizer, 0.4, total_steps=101, pct_start=31 / 101), but
    for step 15: its rise is a cosine, ours the paper's line."""
    rates = _rates("one_cycle", (0, 30, 48, 65, 100), 100, warmup=0.3)
    golden = [0.016, 0.4, 0.33821277694725377, 0.2000008, 1.6e-06]
    # PyTorch's fall ends at 1.6e-6 in double precision, ours is 0.4 · (1 - (1 - 4e-6)) in float32.
    np.testing.assert_allclose(rates, golden, rtol=1e-6, atol=2e-8)
    assert _rates("one_cycle", (15,), 100, warmup=0.3) == pytest.approx([0.208])
    with pytest.raises(UserError, match=r"set schedule.warmup"):
        _rates("one_cycle", (0,))


def test_polynomial_is_mlperfs():
    rates = _rates("polynomial", (0, 50, 100, 550, 1000), warmup=0.1)
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.1, 0], atol=1e-7)  # a quarter: power 2
    assert _rates("polynomial", (500,), power=1.0) == pytest.approx([0.2])


def test_the_linear_scaling_rule():
    paper = OptimizerConfig(learning_rate=0.1, reference_batch=256)
    assert schedules.peak_rate(paper, 8192) == pytest.approx(3.2)  # arXiv:1706.02677, section 5.1
    assert schedules.peak_rate(OptimizerConfig(learning_rate=0.1), 8192) == 0.1
    assert _rates("step", (0,), optimizer=paper) == pytest.approx([0.05])  # batch 128


@pytest.mark.parametrize("name", schedules.SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates(name, total):
    for warmup in (0.2, 0.9):
        keys = {"warmup": warmup, "boundaries": (0.95,)}
        assert np.isfinite(_rates(name, range(total + 1), total, **keys)).all()


def test_bad_schedules_are_refused():
    with pytest.raises(UserError, match="Unknown schedule 'cosin'"):
        _rates("cosin", (0,))
    for keys in ({"boundaries": (0.7, 0.5)}, {"warmup": 0.6}, {"warmup": -0.1}, {"warmup": 1.0}):
        with pytest.raises(UserError, match="increase"):
            _rates("step", (0,), **keys)
