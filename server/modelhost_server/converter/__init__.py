"""A short-lived process that has TensorFlow and Keras, for what no worker should have to load them for."""
