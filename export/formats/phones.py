"""Lines for Android and iOS that classify a picture with a TFLite file, for the model card.

They were not run: neither a phone nor its tools are at hand. The libraries are LiteRT's, which keep
TensorFlow Lite's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

_ANDROID = Template("""\
// org.tensorflow:tensorflow-lite, -support and -metadata; bitmap: the picture, upright
val model = FileUtil.loadMappedFile(context, "$file")
val labels = MetadataExtractor(model).getAssociatedFile("labels.txt").bufferedReader().readLines()
val interpreter = Interpreter(model)
val (taken, given) = interpreter.getInputTensor(0) to interpreter.getOutputTensor(0)
val cover = maxOf($wide.0 / bitmap.width, $high.0 / bitmap.height)
val (high, wide) = (bitmap.height * cover).roundToInt() to (bitmap.width * cover).roundToInt()
val picture = ImageProcessor.Builder()
    .add(ResizeOp(high, wide, ResizeOp.ResizeMethod.BILINEAR))
    .add(ResizeWithCropOrPadOp($height, $width))
    .add(CastOp(taken.dataType()))
    .build().process(TensorImage.fromBitmap(bitmap))
val answer = TensorBuffer.createFixedSize(given.shape(), given.dataType())
interpreter.run(picture.buffer, answer.buffer)
val scores = answer.floatArray
println(labels[scores.indices.maxBy { scores[it] }])""")

_IOS = Template("""\
// the package TensorFlowLiteSwift; image: a UIImage, upright; the files lie in the app's bundle
let file = Bundle.main.path(forResource: "$stem", ofType: "tflite")!
let names = Bundle.main.path(forResource: "labels", ofType: "txt")!
let labels = try String(contentsOfFile: names, encoding: .utf8).split(separator: "\\n")
let interpreter = try Interpreter(modelPath: file)
try interpreter.allocateTensors()
let cover = max($wide / image.size.width, $high / image.size.height)
let (w, h) = (image.size.width * cover, image.size.height * cover)
var rgba = [UInt8](repeating: 0, count: 4 * $width * $height)
let canvas = CGContext(
    data: &rgba, width: $width, height: $height, bitsPerComponent: 8, bytesPerRow: 4 * $width,
    space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
canvas.interpolationQuality = .high
let place = CGRect(x: ($width - w) / 2, y: ($height - h) / 2, width: w, height: h)
canvas.draw(image.cgImage!, in: place)
let pixels = rgba.enumerated().filter { $$0.offset % 4 < 3 }.map(\\.element)
let isFloat = try interpreter.input(at: 0).dataType == .float32
let floats = pixels.map(Float.init).withUnsafeBufferPointer { Data(buffer: $$0) }
try interpreter.copy(isFloat ? floats : Data(pixels), toInputAt: 0)
try interpreter.invoke()
let given = try interpreter.output(at: 0)
let asFloats = given.data.withUnsafeBytes { Array($$0.bindMemory(to: Float.self)) }
let scores = given.dataType == .float32 ? asFloats : given.data.map(Float.init)
print(labels[scores.indices.max { scores[$$0] < scores[$$1] }!])""")


def snippets(
    file: Mapping[str, Any], size: tuple[int, int], covered: tuple[int, int]
) -> dict[str, str]:
    """Return {language: code} that classifies a picture with a TFLite file.

    Args:
        file: the file's entry of the manifest. Its input must be uint8 or float32, from 0 to 255.
        size: height and width of the input.
        covered: height and width that the picture is resized to cover, before the crop.
    """
    values = {
        "file": file["file"],
        "stem": file["file"].removesuffix(".tflite"),
        **dict(zip(("height", "width"), size, strict=True)),
        **dict(zip(("high", "wide"), covered, strict=True)),
    }
    return {"kotlin": _ANDROID.substitute(values), "swift": _IOS.substitute(values)}
