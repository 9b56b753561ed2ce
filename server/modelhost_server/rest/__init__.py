"""The REST door: TensorFlow Serving's and the Open Inference Protocol's HTTP APIs, over the same services and queue."""
