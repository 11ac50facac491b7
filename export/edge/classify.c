/* Classify an image with a .tflite file in C, on the libLiteRt.so of the wheel ai-edge-litert 2.3.0.
 *
 *   L=$(python -c "import ai_edge_litert; print(ai_edge_litert.__path__[0])")
 *   gcc -std=c11 -O2 classify.c -o classify "$L/libLiteRt.so" -Wl,-rpath,"$L"
 *   ./classify MODEL.tflite IMAGE.rgb
 *
 * IMAGE.rgb holds the pixels alone: RGB, a byte each, row by row, of the model's size. The model
 * takes float32 0...255 or uint8. Printed are the scores, one a line, as the file gives them: of a
 * uint8 file whole numbers.
 *
 * The wheel has no headers, and the functions changed between versions: these declarations are of
 * 2.3.0 and of no other version. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct LiteRtEnvironmentT* Environment;
typedef struct LiteRtModelT* Model;
typedef struct LiteRtOptionsT* Options;
typedef struct LiteRtCompiledModelT* Compiled;
typedef struct LiteRtSignatureT* Signature;
typedef struct LiteRtTensorT* Tensor;
typedef struct LiteRtTensorBufferT* Buffer;
typedef struct LiteRtTensorBufferRequirementsT* Requirements;
typedef struct { uint32_t element, shape[63]; } TensorType; /* with room for more than 2.3.0 has */
enum { kCpu = 1, kRead = 0, kWrite = 1, kFloat32 = 1, kUint8 = 3 };

int LiteRtCreateEnvironment(int count, const void* options, Environment* environment);
int LiteRtCreateModelFromFile(Environment environment, const char* path, Model* model);
int LiteRtCreateOptions(Options* options);
int LiteRtSetOptionsHardwareAccelerators(Options options, int accelerators);
int LiteRtCreateCompiledModel(Environment, Model, Options, Compiled* compiled);
int LiteRtGetModelSignature(Model model, size_t index, Signature* signature);
int LiteRtGetSignatureInputTensorByIndex(Signature signature, size_t index, Tensor* tensor);
int LiteRtGetSignatureOutputTensorByIndex(Signature signature, size_t index, Tensor* tensor);
int LiteRtGetRankedTensorType(Tensor tensor, TensorType* type);
int LiteRtGetCompiledModelInputBufferRequirements(Compiled, size_t, size_t, Requirements*);
int LiteRtGetCompiledModelOutputBufferRequirements(Compiled, size_t, size_t, Requirements*);
int LiteRtCreateManagedTensorBufferFromRequirements(Environment, const TensorType*, Requirements,
                                                    Buffer* buffer);
int LiteRtGetTensorBufferPackedSize(Buffer buffer, size_t* bytes);
int LiteRtLockTensorBuffer(Buffer buffer, void** address, int mode);
int LiteRtUnlockTensorBuffer(Buffer buffer);
int LiteRtRunCompiledModel(Compiled, size_t signature, size_t inputs, Buffer* input,
                           size_t outputs, Buffer* output);
void LiteRtDestroyTensorBuffer(Buffer buffer);
void LiteRtDestroyCompiledModel(Compiled compiled);
void LiteRtDestroyOptions(Options options);
void LiteRtDestroyModel(Model model);
void LiteRtDestroyEnvironment(Environment environment);

#define MUST(call)                                                 \
  do {                                                             \
    const int status = (call);                                     \
    if (status) {                                                  \
      fprintf(stderr, "%s: status %d\n", #call, status);           \
      exit(1);                                                     \
    }                                                              \
  } while (0)

static uint8_t* ReadFile(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) {
    perror(path);
    exit(1);
  }
  *bytes = (size_t)ftell(file);
  rewind(file);
  uint8_t* content = malloc(*bytes + 1);
  if (!content || fread(content, 1, *bytes, file) != *bytes) {
    perror(path);
    exit(1);
  }
  fclose(file);
  return content;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.tflite IMAGE.rgb\n", argv[0]);
    return 2;
  }
  size_t count;
  uint8_t* pixels = ReadFile(argv[2], &count);

  Environment environment;
  Model model;
  Options options;
  Compiled compiled;
  MUST(LiteRtCreateEnvironment(0, NULL, &environment));
  MUST(LiteRtCreateModelFromFile(environment, argv[1], &model));
  MUST(LiteRtCreateOptions(&options));
  MUST(LiteRtSetOptionsHardwareAccelerators(options, kCpu));
  MUST(LiteRtCreateCompiledModel(environment, model, options, &compiled));

  Signature signature;
  Tensor tensor;
  TensorType type;
  Requirements requirements;
  Buffer input, output;
  MUST(LiteRtGetModelSignature(model, 0, &signature));
  MUST(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor));
  MUST(LiteRtGetRankedTensorType(tensor, &type));
  const int is_float = type.element == kFloat32;
  if (!is_float && type.element != kUint8) {
    fprintf(stderr, "%s takes neither float32 nor uint8\n", argv[1]);
    return 1;
  }
  MUST(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &requirements));
  MUST(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, requirements, &input));
  MUST(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor));
  MUST(LiteRtGetRankedTensorType(tensor, &type));
  MUST(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &requirements));
  MUST(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, requirements, &output));

  size_t bytes;
  void* address;
  MUST(LiteRtGetTensorBufferPackedSize(input, &bytes));
  if (count != (is_float ? bytes / 4 : bytes)) {
    fprintf(stderr, "%s has %zu bytes; the model takes %zu\n", argv[2], count,
            is_float ? bytes / 4 : bytes);
    return 1;
  }
  MUST(LiteRtLockTensorBuffer(input, &address, kWrite));
  for (size_t i = 0; i < count; ++i) {
    if (is_float) ((float*)address)[i] = pixels[i];
    else ((uint8_t*)address)[i] = pixels[i];
  }
  MUST(LiteRtUnlockTensorBuffer(input));
  MUST(LiteRtRunCompiledModel(compiled, 0, 1, &input, 1, &output));

  MUST(LiteRtGetTensorBufferPackedSize(output, &bytes));
  MUST(LiteRtLockTensorBuffer(output, &address, kRead));
  for (size_t i = 0; i < (is_float ? bytes / 4 : bytes); ++i) {
    if (is_float) printf("%.9g\n", ((float*)address)[i]);
    else printf("%d\n", ((uint8_t*)address)[i]);
  }
  MUST(LiteRtUnlockTensorBuffer(output));

  LiteRtDestroyTensorBuffer(output);
  LiteRtDestroyTensorBuffer(input);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
  free(pixels);
  return 0;
}
