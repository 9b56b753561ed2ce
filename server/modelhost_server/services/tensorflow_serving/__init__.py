"""TensorFlow Serving's gRPC API, as its own clients speak it."""
