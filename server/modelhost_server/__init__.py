"""The modelhost server: hosts TensorFlow models in worker processes, one scope each, and answers gRPC."""
