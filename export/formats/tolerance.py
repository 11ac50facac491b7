"""The limits that each format must meet when it is compared with the Keras model, with reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """The limits for one format.

    Attributes:
        agreement: least top-1 agreement with the Keras model, up to ties. The measured share may
            be below it by two standard errors of a share over n images.
        snr_db: least signal-to-noise ratio of the outputs, in decibels.
        logits: largest error of the logits, relative to the largest |logit|; float formats only.
    """

    agreement: float
    snr_db: float
    logits: float | None = None


# The operations are the same float32 operations, but other kernels sum in another order.
FLOAT32 = Tolerance(1.0, 60, 1e-4)
# Weights are rounded to 11 bits (2^-12 relative); the errors add up over a hundred layers.
FLOAT16 = Tolerance(0.99, 40, 2e-2)
# With 8-bit weights, single probabilities near 1/2 may move by tenths. Published int8 ResNets lose
# up to half a point of accuracy. Noise of a third of the signal (10 dB) is more than rounding.
# tests/test_bars.py requires 0.98 for this package's weights. A network with many similar classes
# agrees less.
INT8 = Tolerance(0.97, 10)
# A bit is 6 dB, so 4-bit weights are 24 dB noisier than the 8-bit weights of tflite-dynamic, whose
# outputs have about 40 dB. About 16 dB remain. At 5 dB the noise is over half the signal: a fault.
INT4 = Tolerance(0.9, 5)
