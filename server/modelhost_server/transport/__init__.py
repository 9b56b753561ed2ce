"""The wire: serves the services over gRPC. Only here, and in `app`, is grpc imported."""
