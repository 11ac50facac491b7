// $name on a microcontroller: TensorFlow Lite for Microcontrollers (TFLM), one image after another.
//
// Replace ReadImage by your camera and printf by what your board has. The resolver knows the
// operations of this file and no others, so that the rest of TFLM is not linked.

#include <cstdint>
#include <cstdio>

#include "model_data.h"
#include "tensorflow/lite/core/c/common.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

static_assert(model::kArenaBytes > 0, "The arena was not measured; model_data.h says what to do.");

namespace {

constexpr int kOperations = $count;
alignas(16) std::uint8_t arena[model::kArenaBytes];

TfLiteStatus AddOperations(tflite::MicroMutableOpResolver<kOperations>& resolver) {
$operations
  return kTfLiteOk;
}

// Fills `input` with pixels: RGB, row by row, from the upper left. A byte 0...255 is written as
// byte - 128 where model_data.h says scale 1 and zero point -128.
void ReadImage(std::int8_t* input) {
  for (int i = 0; i < model::kHeight * model::kWidth * model::kChannels; ++i) input[i] = 0;
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  const tflite::Model* file = tflite::GetModel(model::kModel);
  if (file->version() != TFLITE_SCHEMA_VERSION) return 1;

  static tflite::MicroMutableOpResolver<kOperations> resolver;
  if (AddOperations(resolver) != kTfLiteOk) return 2;
  static tflite::MicroInterpreter interpreter(file, resolver, arena, model::kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    std::printf("No setup in an arena of %u bytes: raise kArenaBytes in model_data.h.\n",
                static_cast<unsigned>(model::kArenaBytes));
    return 3;
  }
  std::printf("arena: %u of %u bytes used\n",
              static_cast<unsigned>(interpreter.arena_used_bytes()),
              static_cast<unsigned>(model::kArenaBytes));

  ReadImage(interpreter.input(0)->data.int8);
  if (interpreter.Invoke() != kTfLiteOk) return 4;

  const std::int8_t* scores = interpreter.output(0)->data.int8;
  int best = 0;
  for (int i = 1; i < model::kOutputs; ++i) {
    if (scores[i] > scores[best]) best = i;
  }
  float score = (scores[best] - model::kOutputZeroPoint) * model::kOutputScale;
  if (model::kOutputs < model::kClasses) {  // one output for two classes
    best = score > model::kThreshold ? 1 : 0;
    if (best == 0) score = 2 * model::kThreshold - score;
  }
  std::printf("%s: %d/1000\n", model::kLabels[best], static_cast<int>(1000 * score + 0.5f));
  return 0;
}
