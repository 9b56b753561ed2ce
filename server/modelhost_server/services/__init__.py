"""The services, by protocol: they validate, call the host, and convert. gRPC stays outside."""
