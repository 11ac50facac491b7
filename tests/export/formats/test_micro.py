"""The format for microcontrollers: an array in C++, and what TFLM's own interpreter makes of it."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers.environments import make_environment, run_in

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import check, export
from keras_resnet.export.formats import micro
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.locate import read_array
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.images.answers import Answers
from keras_resnet.recipes.runs import report
from keras_resnet.recipes.runs.folder import Run

NAMES = ["zero", 'say "one"', "two??/", "drei\\vier", "fünf", "5f", "six", "seven", "eight", "nine"]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


@pytest.fixture(scope="module")
def model():
    return keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)


@pytest.fixture(scope="module")
def exported(model, digits, tmp_path_factory):
    """ResNet-8, trained, for a microcontroller and as a file for the same."""
    return export(
        model,
        ["micro", "tflite-int8"],
        out=tmp_path_factory.mktemp("micro") / "out",
        calibration=digits.train.sample(128).images,
        check_images=digits.test.images,
        name="resnet8",
        input_type="int8",
        labels=NAMES,
        about=None,
        verbose=False,
    )


@pytest.fixture(scope="module")
def folder(exported):
    return exported.folder / "resnet8-micro"


def test_the_array_is_the_int8_file_and_is_checked_as_one(exported, folder):
    assert read_array(folder) == (exported.folder / "resnet8-int8.tflite").read_bytes()
    in_array, in_file = exported.checks
    assert in_array.passed, in_array.problems
    assert (in_array.input_dtype, in_array.output_dtype) == ("int8", "int8")
    assert in_array.agreement == in_file.agreement
    assert [item.passed for item in check.check_folder(exported.folder)] == [True, True]


def test_input_and_output_are_int8_whatever_the_other_file_takes(model, digits, tmp_path):
    report = export(
        model,
        ["tflite-int8", "micro"],
        out=tmp_path / "out",
        calibration=digits.train.sample(64).images,
        check_images=digits.test.images[:50],
        verbose=False,
    )
    assert [item.input_dtype for item in report.checks] == ["uint8", "int8"]


@needs_compiler
def test_the_compiled_array_has_the_same_bytes(folder, tmp_path):
    (tmp_path / "dump.cc").write_text(
        '#include <cstdint>\n#include <cstdio>\n#include "model_data.h"\n'
        "int main() {\n"
        "  if (reinterpret_cast<std::uintptr_t>(model::kModel) % 16) return 1;\n"
        "  std::fwrite(model::kModel, 1, model::kModelBytes, stdout);\n"
        '  for (const char* label : model::kLabels) std::fprintf(stderr, "%s\\n", label);\n'
        "}\n"
    )
    sources = [tmp_path / "dump.cc", folder / "model_data.cc"]
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    subprocess.run(["g++", *strict, *sources, "-o", tmp_path / "dump"], check=True)
    result = subprocess.run([tmp_path / "dump"], capture_output=True, check=True)
    assert result.stdout == read_array(folder)
    assert result.stderr.decode().splitlines() == NAMES


# A Cortex-M4 as QEMU's board mps2-an386 has it: code at 0, memory at 0x20000000.
_BOARD = """
ENTRY(_start)
MEMORY { code : ORIGIN = 0, LENGTH = 4M  data : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text* .rodata* .eh_frame*) } > code
  .ARM.extab : { *(.ARM.extab*) } > code
  .ARM.exidx : { __exidx_start = .; *(.ARM.exidx*) __exidx_end = .; } > code
  .init_array : { __preinit_array_start = .; KEEP(*(.preinit_array*)) __preinit_array_end = .;
    __init_array_start = .; KEEP(*(SORT(.init_array.*))) KEEP(*(.init_array*))
    __init_array_end = .; __fini_array_start = .; KEEP(*(.fini_array*)) __fini_array_end = .;
    KEEP(*(.init)) KEEP(*(.fini)) } > code
  .data : { *(.data*) } > data
  .bss : { __bss_start__ = .; *(.bss* COMMON) __bss_end__ = .; end = .; __end__ = .; } > data
}
"""
_VECTORS = """
extern "C" void _start();
__attribute__((section(".vectors"), used)) void* const vectors[] = {
    reinterpret_cast<void*>(0x20400000), reinterpret_cast<void*>(_start)};
"""
_CORTEX_M4 = ("arm-none-eabi-g++", "-std=c++17", "-mcpu=cortex-m4", "-mthumb", "-Os")
_BARE = ("-fno-exceptions", "-fno-rtti", "--specs=rdimon.specs")  # printf goes to QEMU
needs_arm = pytest.mark.skipif(
    None in (shutil.which(_CORTEX_M4[0]), shutil.which("qemu-system-arm")),
    reason="needs Debian's gcc-arm-none-eabi, libstdc++-arm-none-eabi-newlib and qemu-system-arm",
)


def _on_cortex_m4(sources, includes, place):
    """Compile and link for a Cortex-M4, run on an emulated one; return what it printed."""
    (place / "vectors.cc").write_text(_VECTORS)
    (place / "board.ld").write_text(_BOARD)
    program, board = place / "program.elf", ["-T", place / "board.ld"]
    sources = [*sources, place / "vectors.cc"]
    built = [*_CORTEX_M4, *_BARE, f"-I{includes}", *board, *sources, "-o", program]
    subprocess.run(built, check=True)
    machine = ["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]
    run = ["qemu-system-arm", *machine, "-semihosting", "-kernel", program]
    return subprocess.run(run, capture_output=True, timeout=60)


@needs_arm
def test_the_array_has_the_same_bytes_on_a_cortex_m4(folder, tmp_path):
    (tmp_path / "dump.cc").write_text(
        '#include <cstdint>\n#include <cstdio>\n#include "model_data.h"\n'
        "int main() {\n"
        "  if (reinterpret_cast<std::uintptr_t>(model::kModel) % 16) return 1;\n"
        "  unsigned long sum = 0;\n"
        "  for (unsigned i = 0; i < model::kModelBytes; ++i) sum = sum * 31 + model::kModel[i];\n"
        '  std::printf("%lu %u\\n", sum & 0xffffffff, unsigned(model::kModelBytes));\n'
        "}\n"
    )
    done = _on_cortex_m4([tmp_path / "dump.cc", folder / "model_data.cc"], folder, tmp_path)
    content, total = read_array(folder), 0
    for byte in content:
        total = (total * 31 + byte) & 0xFFFFFFFF
    assert done.stdout.decode().split() == [str(total), str(len(content))], done


@needs_arm
def test_main_runs_on_a_cortex_m4(folder, tmp_path):
    """With an interpreter without kernels, as TFLM's sources are not to be had here."""
    _main_and_declarations(folder, tmp_path)
    (tmp_path / "small.cc").write_text(_TOO_SMALL)
    sources = [tmp_path / "main.cc", tmp_path / "small.cc", folder / "model_data.cc"]
    done = _on_cortex_m4(sources, tmp_path, tmp_path)
    assert done.stdout.decode().startswith("No setup in an arena of 65536 bytes"), done


def test_the_header_has_the_quantization_of_the_file(folder):
    runtime = open_file(folder)
    header = (folder / "model_data.h").read_text()
    (scale, zero), (out_scale, out_zero) = (
        details["quantization"] for details in (runtime._input, runtime._output)
    )
    assert f"kInputScale = {scale}f, kOutputScale = {out_scale}f;" in header
    assert f"kInputZeroPoint = {zero}, kOutputZeroPoint = {out_zero};" in header
    assert "kHeight = 32, kWidth = 32, kChannels = 3;" in header
    assert "kOutputs = 10, kClasses = 10;" in header


# What main.cc uses of TFLM, as its headers declare it.
_DECLARATIONS = """
#include <cstddef>
#include <cstdint>
#pragma once
#define TFLITE_SCHEMA_VERSION (3)
#define TF_LITE_ENSURE_STATUS(a) \\
  do { const TfLiteStatus s = (a); if (s != kTfLiteOk) return s; } while (0)
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteTensor { union { std::int8_t* int8; } data; };
namespace tflite {
void InitializeTarget();
struct Model { std::uint32_t version() const; };
const Model* GetModel(const void* buffer);
template <unsigned int n> struct MicroMutableOpResolver {
  TfLiteStatus AddAdd(); TfLiteStatus AddConv2D(); TfLiteStatus AddFullyConnected();
  TfLiteStatus AddLogistic(); TfLiteStatus AddMean(); TfLiteStatus AddSoftmax();
};
struct MicroInterpreter {
  template <unsigned int n>
  MicroInterpreter(const Model*, const MicroMutableOpResolver<n>&, std::uint8_t*, std::size_t);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(std::size_t);
  TfLiteTensor* output(std::size_t);
  std::size_t arena_used_bytes() const;
};
}  // namespace tflite
"""


def _main_and_declarations(folder, tmp_path):
    main = (folder / "main.cc").read_text()
    for name in re.findall(r'#include "(tensorflow/.*)"', main):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('#include "declarations.h"\n')
    (tmp_path / "declarations.h").write_text(_DECLARATIONS)
    header = (folder / "model_data.h").read_text()  # an arena, measured or not
    (tmp_path / "model_data.h").write_text(re.sub(r"(kArenaBytes =) \d+", r"\1 65536", header))
    shutil.copy(folder / "main.cc", tmp_path)


@needs_compiler
def test_main_is_correct_cpp(folder, tmp_path):
    """Against declarations only: TFLM's sources are not to be had here."""
    _main_and_declarations(folder, tmp_path)
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{tmp_path}"]
    subprocess.run(["g++", *strict, tmp_path / "main.cc"], check=True)


# An interpreter whose kernels want more memory than there is.
_TOO_SMALL = """
#include "declarations.h"
namespace tflite {
void InitializeTarget() {}
std::uint32_t Model::version() const { return TFLITE_SCHEMA_VERSION; }
const Model* GetModel(const void*) { static Model model; return &model; }
template <unsigned int n> TfLiteStatus MicroMutableOpResolver<n>::AddAdd() { return kTfLiteOk; }
template <unsigned int n> TfLiteStatus MicroMutableOpResolver<n>::AddConv2D() { return kTfLiteOk; }
template <unsigned int n>
TfLiteStatus MicroMutableOpResolver<n>::AddFullyConnected() { return kTfLiteOk; }
template <unsigned int n> TfLiteStatus MicroMutableOpResolver<n>::AddMean() { return kTfLiteOk; }
template <unsigned int n> TfLiteStatus MicroMutableOpResolver<n>::AddSoftmax() { return kTfLiteOk; }
template struct MicroMutableOpResolver<5>;
template <unsigned int n> MicroInterpreter::MicroInterpreter(
    const Model*, const MicroMutableOpResolver<n>&, std::uint8_t*, std::size_t) {}
template MicroInterpreter::MicroInterpreter(
    const Model*, const MicroMutableOpResolver<5>&, std::uint8_t*, std::size_t);
TfLiteStatus MicroInterpreter::AllocateTensors() { return kTfLiteError; }
TfLiteStatus MicroInterpreter::Invoke() { return kTfLiteError; }
TfLiteTensor* MicroInterpreter::input(std::size_t) { return nullptr; }
TfLiteTensor* MicroInterpreter::output(std::size_t) { return nullptr; }
std::size_t MicroInterpreter::arena_used_bytes() const { return 0; }
}  // namespace tflite
"""


@needs_compiler
def test_an_arena_that_is_too_small_is_said(folder, tmp_path):
    _main_and_declarations(folder, tmp_path)
    (tmp_path / "small.cc").write_text(_TOO_SMALL)
    sources = [tmp_path / "main.cc", tmp_path / "small.cc", folder / "model_data.cc"]
    program = tmp_path / "program"
    subprocess.run(["g++", "-std=c++17", f"-I{tmp_path}", *sources, "-o", program], check=True)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 3
    said = "No setup in an arena of 65536 bytes: raise kArenaBytes in model_data.h.\n"
    assert result.stdout == said


# An interpreter that always gives the byte it was compiled with.
_ONE_OUTPUT = """
#include "declarations.h"
namespace tflite {
void InitializeTarget() {}
std::uint32_t Model::version() const { return TFLITE_SCHEMA_VERSION; }
const Model* GetModel(const void*) { static Model model; return &model; }
using Resolver = MicroMutableOpResolver<4>;
template <> TfLiteStatus Resolver::AddConv2D() { return kTfLiteOk; }
template <> TfLiteStatus Resolver::AddFullyConnected() { return kTfLiteOk; }
template <> TfLiteStatus Resolver::AddLogistic() { return kTfLiteOk; }
template <> TfLiteStatus Resolver::AddMean() { return kTfLiteOk; }
template <>
MicroInterpreter::MicroInterpreter(const Model*, const Resolver&, std::uint8_t*, std::size_t) {}
TfLiteStatus MicroInterpreter::AllocateTensors() { return kTfLiteOk; }
TfLiteStatus MicroInterpreter::Invoke() { return kTfLiteOk; }
std::int8_t bytes[4096] = {GIVEN};
TfLiteTensor tensor = {{bytes}};
TfLiteTensor* MicroInterpreter::input(std::size_t) {
  static std::int8_t pixels[4096];
  static TfLiteTensor image = {{pixels}};
  return &image;
}
TfLiteTensor* MicroInterpreter::output(std::size_t) { return &tensor; }
std::size_t MicroInterpreter::arena_used_bytes() const { return 0; }
}  // namespace tflite
"""


@needs_compiler
@pytest.mark.parametrize(("byte", "said"), [(100, "on: 891/1000"), (-100, "off: 891/1000")])
def test_main_names_either_class_of_one_sigmoid(tmp_path, byte, said):
    """A byte of the sigmoid is (byte + 128) / 256 in every TFLite file: 228/256 and 28/256."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x), name="light")
    noise = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3)).astype("uint8")
    given = {"calibration": noise, "labels": ["off", "on"], "verbose": False}
    folder = export(model, ["micro"], out=tmp_path / "out", **given).folder / "light-micro"
    _main_and_declarations(folder, tmp_path)
    fake = tmp_path / "fake.cc"
    fake.write_text(_ONE_OUTPUT.replace("GIVEN", str(byte)))
    sources = [tmp_path / "main.cc", fake, folder / "model_data.cc"]
    program = tmp_path / "program"
    subprocess.run(["g++", "-std=c++17", f"-I{tmp_path}", *sources, "-o", program], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == said


def test_main_registers_the_operations_of_the_file(folder):
    main = (folder / "main.cc").read_text()
    kinds = {item.kind for item in tflite_graph.operations(tflite_graph.read(read_array(folder)))}
    assert kinds == {"ADD", "CONV_2D", "FULLY_CONNECTED", "MEAN", "SOFTMAX"}
    added = re.findall(r"resolver\.Add(\w+)\(\)", main)
    assert added == ["Add", "Conv2D", "FullyConnected", "Mean", "Softmax"]
    assert "kOperations = 5;" in main
    assert "$" not in main


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("MAX_POOL_2D", "AddMaxPool2D"),
        ("PAD", "AddPad"),
        ("PADV2", "AddPadV2"),
        ("STRIDED_SLICE", "AddStridedSlice"),
        ("RELU6", "AddRelu6"),
    ],
)
def test_operations_have_the_resolvers_names(kind, method):
    """As in TFLM's micro_mutable_op_resolver.h."""
    assert micro._adder(kind) == method


def test_without_tflms_interpreter_the_header_says_what_to_do(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.warns(UserWarning, match="working memory .* was not measured"):
        micro.write(tmp_path / "out", read_array(folder), "x", None, Answers("softmax", 10))
    header = (tmp_path / "out" / "model_data.h").read_text()
    assert 'Not measured. pip install -e ".[micro]"' in header
    assert "kArenaBytes = 0;" in header  # and main.cc does not compile with it
    assert '"class 9",' in (tmp_path / "out" / "model_data.cc").read_text()


def test_an_arena_that_was_not_measured_is_said_wherever_the_check_is(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    model = keras_resnet.create_model("test_resnet", include_preprocessing=True)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("uint8")
    out = tmp_path / "exports"
    with pytest.warns(UserWarning, match="was not measured"):
        found = export(model, ["tflite-int8", "micro"], out=out, calibration=images, verbose=False)
    said = "passed, arena not measured"
    assert [item.notes for item in found.checks] == [(), ("arena not measured",)]
    entries = json.loads((out / "manifest.json").read_text())["files"]
    assert [(x["passed"], x["notes"]) for x in entries] == [
        (True, []),
        (True, ["arena not measured"]),
    ]
    assert (out / "README.md").read_text().count(f"| {said} |") == 1
    assert report._exports(Run(tmp_path)).count(f">{said}</td>") == 1
    for verb in "check", "compare":
        assert main([verb, str(out)]) == 0
        assert capsys.readouterr().out.count(said) == 1
        assert main([verb, str(out), "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        rows = content.get("files") or content["models"]
        assert [row["notes"] for row in rows] == [[], ["arena not measured"]]


def test_a_folder_of_another_origin_is_refused(tmp_path):
    (tmp_path / "model_data.cc").write_text("unsigned char model[] = {0x00};\n")
    with pytest.raises(UserError, match=r"model_data.cc has no model"):
        open_file(tmp_path)


def test_the_arena_is_the_least_that_suffices(folder):
    tflm = pytest.importorskip("tflite_micro", reason="tflite-micro is not installed").runtime
    data = read_array(folder)
    least = micro.measure_arena(data)
    tflm.Interpreter.from_bytes(data, arena_size=least)
    with pytest.raises(RuntimeError):
        tflm.Interpreter.from_bytes(data, arena_size=least - 16)
    assert open_file(folder).notes == ()
    header = (folder / "model_data.h").read_text()
    given = int(re.search(r"kArenaBytes = (\d+);", header)[1])
    assert given % 1024 == 0
    assert 0 <= given - least < 1024


@pytest.mark.slow
def test_resnet20_has_its_arena_too(digits, tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    model = keras_resnet.ResNet20(weights="cifar10", include_preprocessing=True)
    images = digits.train.sample(128).images
    report = export(model, ["micro"], out=tmp_path / "out", calibration=images, verbose=False)
    assert report.passed
    header = (report.folder / "resnet20-micro" / "model_data.h").read_text()
    print(re.search(r"// Working memory\. (.*)", header)[1])
    # Three maps of 32×32×16 bytes, which a unit's addition wants at once, are the most of it.
    assert 3 * 16384 < int(re.search(r"kArenaBytes = (\d+);", header)[1]) < 2 * 3 * 16384


def test_what_tflm_cannot_run_is_refused(tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="gelu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x), name="x")
    export(model, ["tflite-float32"], out=tmp_path / "out", verbose=False)
    with pytest.raises(UserError, match=r"cannot run this model\. .*GELU"):
        micro.measure_arena((tmp_path / "out" / "x-float32.tflite").read_bytes())


_RUN = """
import sys
import numpy as np
from tflite_micro import runtime

interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
answers = []
for image in np.load("images.npy"):
    interpreter.set_input(image[None], 0)
    interpreter.invoke()
    answers.append(interpreter.get_output(0)[0])
np.save("answers.npy", answers)
"""


@pytest.mark.slow
@pytest.mark.network
def test_tflm_answers_as_litert_on_real_images(exported, digits, tmp_path):
    """Bit by bit as LiteRT's reference kernels; its fast ones round half steps in another way."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    python = make_environment(tmp_path, "tflite-micro>=0.dev20260101")
    path = exported.folder / "resnet8-int8.tflite"
    images = (digits.test.images[:100].astype("int16") - 128).astype("int8")
    np.save(tmp_path / "images.npy", images)
    run_in(python, _RUN, path, 64 * 1024, cwd=tmp_path)
    answers = np.load(tmp_path / "answers.npy")
    reference = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    run = reference.get_signature_runner()
    expected = [run(images=image[None])["predictions"][0] for image in images]
    np.testing.assert_array_equal(answers, expected)
    fast = open_file(path).predict(digits.test.images[:100])
    difference = np.abs((answers.astype("float32") + 128) / 256 - fast)
    # A few half steps, passed on by eight layers; on 100 images of CIFAR-10 it was 0.11 at most.
    assert difference.max() < 0.2
    assert (answers.argmax(-1) == fast.argmax(-1)).mean() >= 0.97
