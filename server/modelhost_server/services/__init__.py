"""The services: they validate, call the host, and convert. Parsed messages come in and go out; gRPC stays outside."""
