"""Fine-tune as Keras' guide does: a frozen backbone with a new Dense, then all of it, by `fit`.

    python benchmarks/peers/keras_finetune.py FOLDER [--size 64] [--epochs 20] [--seed 0]

The guide is https://keras.io/guides/transfer_learning. The backbone is our ResNet-20 of CIFAR-10,
so only the way of training differs. The last line of the output is JSON.
"""

import argparse
import json
import time

import keras

import keras_resnet

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

keras.utils.set_random_seed(options.seed)
how = {"image_size": (options.size, options.size), "crop_to_aspect_ratio": True}
train = keras.utils.image_dataset_from_directory(f"{options.folder}/train", **how)
test = keras.utils.image_dataset_from_directory(f"{options.folder}/val", shuffle=False, **how)
body = keras_resnet.ResNet20(
    weights="cifar10",
    include_top=False,
    pooling="avg",
    include_preprocessing=True,
    input_shape=(options.size, options.size, 3),
)
inputs = keras.Input((options.size, options.size, 3))
x = keras.layers.RandomFlip("horizontal")(inputs)
body.trainable = False
outputs = keras.layers.Dense(len(train.class_names), "softmax")(body(x, training=False))
model = keras.Model(inputs, outputs)
began = time.perf_counter()
for trainable, rate in ((False, 1e-3), (True, 1e-4)):
    body.trainable = trainable
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    last = options.epochs // 2 - 1
    model.fit(train, epochs=last, verbose=2)
    epoch_began = time.perf_counter()
    model.fit(train, epochs=last + 1, initial_epoch=last, verbose=2)
pace = len(train.file_paths) / (time.perf_counter() - epoch_began)
seconds = time.perf_counter() - began
accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
print(json.dumps({"accuracy": accuracy, "seconds": seconds, "images_per_second": pace}))
