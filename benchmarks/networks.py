"""The two networks that the benchmarks use."""

import keras


def perceptron(activation):
    model = keras.Sequential([keras.Input((784,))])
    for _ in range(2):
        model.add(keras.layers.Dense(512))
        model.add(activation())
    model.add(keras.layers.Dense(10, activation="softmax"))
    return model


def convolutional(activation):
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for filters in (16, 32):
        model.add(keras.layers.Conv2D(filters, 3, padding="same"))
        model.add(activation())
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10, activation="softmax"))
    return model
